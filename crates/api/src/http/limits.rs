//! How much of the host a client may take.

/// What clients are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's first line and headers.
    pub head: usize,
    /// Connections at a time. One more is told so and closed.
    pub connections: usize,
}

impl Default for Limits {
    /// Firecracker's body (`--http-api-max-payload-size`), and room for hundreds of
    /// connections.
    fn default() -> Self {
        Self { body: 51_200, head: 8 << 10, connections: 1000 }
    }
}
