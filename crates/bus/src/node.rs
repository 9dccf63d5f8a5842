//! A device's node in the device tree (Devicetree Specification 0.4, 2.2), as
//! the device itself knows it.

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: a flag.
    Empty,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// Strings, one after another.
    Strings(Vec<String>),
    /// The phandle of the machine's 24 MHz reference clock, this many times.
    Clock(usize),
}

/// A node without its place in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The generic name, without unit address: `serial`, `rtc`, `virtio_mmio`.
    pub name: &'static str,
    /// Properties in order, `compatible` among them.
    pub properties: Vec<(&'static str, Value)>,
}

impl Node {
    /// A node called `name` that a driver finds by `compatible`.
    pub fn new(name: &'static str, compatible: &[&str]) -> Self {
        let strings = compatible.iter().map(|&name| name.to_owned()).collect();
        Self { name, properties: vec![("compatible", Value::Strings(strings))] }
    }

    /// The node with one property more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.properties.push((name, value));
        self
    }
}
