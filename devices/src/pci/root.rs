//! The root of the hierarchy: which function an access goes to, by its number in the
//! enhanced configuration access mechanism (PCI Express Base 5.0, 7.2.2) or by the address
//! that the guest gave it.

use std::sync::Arc;

use kedge_bus::{MmioDevice, Node, Unsuitable};
use kedge_ids::u64_from;

use super::function::{Function, FunctionNumber};
use super::port::RootPort;

/// Bytes of the space of a function.
const FUNCTION_SPACE: u64 = 0x1000;
/// Functions of a bus.
const BUS_FUNCTIONS: u64 = 256;

/// The functions on bus 0, and ports to other buses among them.
#[derive(Default)]
pub struct Root {
    functions: Vec<(FunctionNumber, Arc<dyn Function>)>,
    ports: Vec<Arc<RootPort>>,
}

impl Root {
    /// A root with these functions, no two of the same number.
    pub fn new(functions: Vec<(FunctionNumber, Arc<dyn Function>)>) -> Self {
        Self { functions, ports: Vec::new() }
    }

    /// Adds ports, whose numbers are no function's.
    #[must_use]
    pub fn with_ports(mut self, ports: Vec<(FunctionNumber, Arc<RootPort>)>) -> Self {
        for (number, port) in ports {
            self.functions.push((number, Arc::<RootPort>::clone(&port)));
            self.ports.push(port);
        }
        self
    }

    /// The function with this number on bus 0; from 256 on, those of other buses follow.
    fn numbered(&self, number: u64) -> Option<Arc<dyn Function>> {
        if number < BUS_FUNCTIONS {
            let mut functions = self.functions.iter();
            let found = functions.find(|(own, _)| u64::from(own.number()) == number);
            return found.map(|(_, function)| Arc::clone(function));
        }
        // Behind a port there is one device with one function.
        let bus = u8::try_from(number / BUS_FUNCTIONS).ok()?;
        let is_first = number.is_multiple_of(BUS_FUNCTIONS);
        is_first.then(|| self.ports.iter().find_map(|port| port.below(bus)))?
    }

    /// The function that has all of `length` bytes at `address`, and where in it they are.
    /// Of several the first: no guest with its wits puts two in one place.
    fn at(&self, address: u64, length: u64) -> Option<(Arc<dyn Function>, u64)> {
        let within = |function: &dyn Function| {
            let offset = address.checked_sub(function.start()?)?;
            let left = function.size().checked_sub(offset)?;
            (length <= left).then_some(offset)
        };
        let here = self.functions.iter().find_map(|(_, function)| {
            within(function.as_ref()).map(|offset| (Arc::clone(function), offset))
        });
        here.or_else(|| {
            let mut cards = self.ports.iter().filter_map(|port| port.powered());
            cards.find_map(|card| within(card.as_ref()).map(|offset| (card, offset)))
        })
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.functions.iter().map(|(number, _)| number)).finish()
    }
}

/// The configuration spaces of all functions, in memory. Where there is no function, the
/// guest reads ones, and stores do nothing.
#[derive(Debug)]
pub struct Ecam {
    root: Arc<Root>,
    size: u64,
}

impl Ecam {
    /// The spaces of `root`, of `size` bytes with all that are not there.
    pub fn new(root: Arc<Root>, size: u64) -> Self {
        Self { root, size }
    }

    /// The function at an offset, and where in its space that is.
    fn find(
        &self,
        offset: u64,
        length: usize,
    ) -> Result<(Option<Arc<dyn Function>>, u16), Unsuitable> {
        let unsuitable = Unsuitable { offset, length };
        let at = offset % FUNCTION_SPACE;
        if !matches!(length, 1 | 2 | 4) || at + u64_from(length) > FUNCTION_SPACE {
            return Err(unsuitable);
        }
        let function = self.root.numbered(offset / FUNCTION_SPACE);
        Ok((function, u16::try_from(at).map_err(|_| unsuitable)?))
    }
}

impl MmioDevice for Ecam {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        match self.find(offset, data.len())? {
            (Some(function), at) => function.read_config(at, data),
            (None, _) => data.fill(0xff),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        if let (Some(function), at) = self.find(offset, data.len())? {
            function.write_config(at, data);
        }
        Ok(())
    }

    fn node(&self) -> Node {
        Node::new("pcie", &["pci-host-ecam-generic"])
    }
}

/// A range of addresses that leads to the registers of functions.
#[derive(Debug)]
pub struct Window {
    root: Arc<Root>,
    start: u64,
    size: u64,
}

impl Window {
    /// The window of `size` bytes at `start` to the functions of `root`.
    pub fn new(root: Arc<Root>, start: u64, size: u64) -> Self {
        Self { root, start, size }
    }

    fn find(&self, offset: u64, length: usize) -> Result<(Arc<dyn Function>, u64), Unsuitable> {
        let address = self.start.saturating_add(offset);
        self.root.at(address, u64_from(length)).ok_or(Unsuitable { offset, length })
    }
}

impl MmioDevice for Window {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        let (function, at) = self.find(offset, data.len())?;
        function.read(at, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        let (function, at) = self.find(offset, data.len())?;
        function.write(at, data)
    }

    fn node(&self) -> Node {
        Node::new("pcie-window", &[])
    }
}
