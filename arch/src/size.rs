//! Byte counts as a reader wants them.

use std::fmt;

const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// A number of bytes, shown in its largest whole unit or else with one decimal,
/// rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
            None => write!(f, "{bytes} bytes"),
            Some((unit, name)) if bytes.is_multiple_of(*unit) => {
                write!(f, "{} {name}", bytes / unit)
            }
            Some((unit, name)) => {
                write!(f, "{}.{} {name}", bytes / unit, (bytes % unit) * 10 / unit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_in_its_largest_unit() {
        assert_eq!(Size(0).to_string(), "0 bytes");
        assert_eq!(Size(1023).to_string(), "1023 bytes");
        assert_eq!(Size(512 << 20).to_string(), "512 MiB");
        assert_eq!(Size(1022 << 30).to_string(), "1022 GiB");
    }

    #[test]
    fn a_broken_size_has_one_decimal() {
        assert_eq!(Size(3 << 19).to_string(), "1.5 MiB");
        assert_eq!(Size(1025).to_string(), "1.0 KiB");
    }
}
