//! A packet's header (Virtio 1.2, 5.10.6): who sends what to whom, and how much room there
//! is for answers. Payload follows it in the same chain of buffers.
//!
//! The virtio-vsock crate parses it from a chain of its own finding and wants all payload
//! in one descriptor, which Linux does not promise; rings here give checked chains.

/// `VIRTIO_VSOCK_CID_HOST`: the host's address (5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_TYPE_SEQPACKET`.
pub(super) const SEQPACKET: u16 = 2;
/// The header's bytes.
pub(super) const HEADER_SIZE: usize = 44;

/// What a packet is for (5.10.6).
pub(super) mod op {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const RESPONSE: u16 = 2;
    pub(crate) const RST: u16 = 3;
    pub(crate) const SHUTDOWN: u16 = 4;
    pub(crate) const RW: u16 = 5;
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of a shutdown (5.10.6.6.1): what its sender will not do any more.
pub(super) mod shut {
    /// Receive.
    pub(crate) const RECEIVE: u32 = 1;
    /// Send.
    pub(crate) const SEND: u32 = 2;
    /// Either.
    pub(crate) const BOTH: u32 = RECEIVE | SEND;
}

/// Flags of payload that is part of a message (5.10.6.6.2): it is the last of it.
pub(super) const END_OF_MESSAGE: u32 = 1;

/// What a connection carries: `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes, one after the other.
    Stream,
    /// Messages, each as it was sent.
    Seqpacket,
}

impl Kind {
    /// As packets have it.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Stream => STREAM,
            Self::Seqpacket => SEQPACKET,
        }
    }

    /// What a packet has.
    pub(super) const fn of(number: u16) -> Option<Self> {
        match number {
            STREAM => Some(Self::Stream),
            SEQPACKET => Some(Self::Seqpacket),
            _ => None,
        }
    }
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// The bytes of payload.
    pub(super) len: u32,
    /// `type`.
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// The sender's buffer for this connection.
    pub(super) buf_alloc: u32,
    /// The bytes that have left that buffer, ever, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// The header that these bytes are.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut rest = Fields(bytes);
        Self {
            src_cid: u64::from_le_bytes(rest.next()),
            dst_cid: u64::from_le_bytes(rest.next()),
            src_port: u32::from_le_bytes(rest.next()),
            dst_port: u32::from_le_bytes(rest.next()),
            len: u32::from_le_bytes(rest.next()),
            kind: u16::from_le_bytes(rest.next()),
            op: u16::from_le_bytes(rest.next()),
            flags: u32::from_le_bytes(rest.next()),
            buf_alloc: u32::from_le_bytes(rest.next()),
            fwd_cnt: u32::from_le_bytes(rest.next()),
        }
    }

    /// Its bytes.
    pub(super) fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let mut bytes = [0; HEADER_SIZE];
        for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *field;
        }
        bytes
    }

    /// The refusal of it, sent by the one it was for.
    pub(super) fn refusal(self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// Fields that follow each other without gaps.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next field: zeros behind the last.
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        src_cid: 0x0807_0605_0403_0201,
        dst_cid: 0x100f_0e0d_0c0b_0a09,
        src_port: 0x1413_1211,
        dst_port: 0x1817_1615,
        len: 0x1c1b_1a19,
        kind: 0x1e1d,
        op: 0x201f,
        flags: 0x2423_2221,
        buf_alloc: 0x2827_2625,
        fwd_cnt: 0x2c2b_2a29,
    };

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let bytes = std::array::from_fn(|at| u8::try_from(at + 1).unwrap());
        assert_eq!(Header::from_bytes(&bytes), HEADER);
        assert_eq!(HEADER.to_bytes(), bytes);
    }

    #[test]
    fn a_refusal_goes_back_to_the_sender() {
        let refusal = Header { op: op::RST, ..HEADER }.refusal();
        assert_eq!((refusal.src_cid, refusal.dst_cid), (HEADER.dst_cid, HEADER.src_cid));
        assert_eq!((refusal.src_port, refusal.dst_port), (HEADER.dst_port, HEADER.src_port));
        assert_eq!((refusal.op, refusal.kind, refusal.len), (op::RST, HEADER.kind, 0));
    }
}
