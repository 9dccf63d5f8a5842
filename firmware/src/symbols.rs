//! Values of firmware registers as people write them: `1.1`, `trng`, `func-feat,ptp`.

use kedge_diag::Fix;

use crate::hex::Hex;
use crate::register::{Domain, Firmware, FwReg};

/// A value outside its firmware register's domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{reg}` cannot be {}", quoted(asked.as_deref(), *value))]
pub struct BadFwValue {
    /// The register.
    pub reg: FwReg,
    /// The value asked for; 0 where the text means none.
    pub value: u64,
    /// The text that asked for it, where one did.
    pub asked: Option<String>,
}

fn quoted(asked: Option<&str>, value: u64) -> String {
    asked.map_or_else(|| format!("{value:#x}"), |text| format!("`{text}`"))
}

impl Fix for BadFwValue {
    fn fix(&self) -> Option<String> {
        let domain = self.reg.spec().domain;
        let verb = match domain {
            Domain::Version(_) | Domain::Level(_) => "set it to one of",
            Domain::Bits(_) => "list any of",
        };
        let names: Vec<_> = domain.symbols().iter().map(|symbol| symbol.name).collect();
        let or_none = if matches!(domain, Domain::Bits(_)) { "; or write `none`" } else { "" };
        Some(format!("{verb}: {}{or_none}", names.join(", ")))
    }
}

/// The bitmap in which nothing is on.
const NONE: &str = "none";

impl FwReg {
    /// Whether kedge knows what `value` means.
    ///
    /// # Errors
    /// It is outside the register's domain.
    pub fn check(self, value: u64) -> Result<(), BadFwValue> {
        let domain = self.spec().domain;
        let legal = match domain {
            Domain::Bits(_) => value & !domain.mask() == 0,
            Domain::Version(values) | Domain::Level(values) => {
                values.iter().any(|symbol| symbol.value == value)
            }
        };
        if legal { Ok(()) } else { Err(BadFwValue { reg: self, value, asked: None }) }
    }

    /// The value that `text` means: a name; of a bitmap, names between commas or
    /// `none`. A number in hexadecimal stands for itself.
    ///
    /// # Errors
    /// A name is none of the register's, or the value is outside its domain.
    pub fn parse(self, text: &str) -> Result<u64, BadFwValue> {
        let value = self.number(text);
        let value = value.filter(|value| self.check(*value).is_ok());
        value.ok_or_else(|| {
            let value = self.number(text).unwrap_or(0);
            BadFwValue { reg: self, value, asked: Some(text.to_owned()) }
        })
    }

    fn number(self, text: &str) -> Option<u64> {
        match self.spec().domain {
            Domain::Bits(_) if text == NONE => Some(0),
            Domain::Bits(_) => {
                text.split(',').try_fold(0, |all, word| Some(all | self.symbol(word.trim())?))
            }
            Domain::Version(_) | Domain::Level(_) => self.symbol(text),
        }
    }

    fn symbol(self, word: &str) -> Option<u64> {
        let mut symbols = self.spec().domain.symbols().iter();
        let named = symbols.find(|symbol| symbol.name == word).map(|symbol| symbol.value);
        named.or_else(|| Hex::parse(word).map(|hex| hex.0))
    }

    /// `value` as [`Self::parse`] reads it; what has no name is in hexadecimal.
    pub fn format(self, value: u64) -> String {
        let domain = self.spec().domain;
        let Domain::Bits(bits) = domain else {
            let named = domain.symbols().iter().find(|symbol| symbol.value == value);
            return named.map_or_else(|| format!("{value:#x}"), |symbol| symbol.name.to_owned());
        };
        let on = bits.iter().filter(|bit| value & bit.value != 0);
        let mut words: Vec<_> = on.map(|bit| bit.name.to_owned()).collect();
        match value & !domain.mask() {
            0 => {}
            unnamed => words.push(format!("{unnamed:#x}")),
        }
        if words.is_empty() { NONE.to_owned() } else { words.join(",") }
    }
}

impl Firmware {
    /// `value` in the register's words, or in hexadecimal where it has none.
    pub fn format(self, value: u64) -> String {
        match self {
            Self::Known(reg) => reg.format(value),
            Self::Unknown(_) => format!("{value:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_have_names() {
        assert_eq!(FwReg::PsciVersion.parse("1.1"), Ok(0x1_0001));
        assert_eq!(FwReg::VendorHypBmap.parse("ptp, func-feat"), Ok(0x3));
        assert_eq!(FwReg::VendorHypBmap.parse("none"), Ok(0));
        assert_eq!(FwReg::Workaround2.parse("avail-enabled"), Ok(0x12));
        assert_eq!(FwReg::PsciVersion.parse("0x10003"), Ok(0x1_0003));
    }

    #[test]
    fn what_has_no_name_is_shown_as_a_number() {
        assert_eq!(FwReg::PsciVersion.format(0x1_0004), "0x10004");
        assert_eq!(FwReg::VendorHypBmap.format(0x1_0001), "func-feat,0x10000");
        assert_eq!(FwReg::StdBmap.format(0), "none");
        assert_eq!(Firmware::Unknown(kedge_ids::RegId(0x6030_0000_0016_0009)).format(5), "0x5");
    }

    #[test]
    fn a_bad_value_names_the_register_and_the_cure() {
        let error = FwReg::PsciVersion.check(0x3_0000).unwrap_err();
        expect![[r#"
            error: `psci_version` cannot be 0x30000
              fix: set it to one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_bad_bit_names_the_bits_there_are() {
        let error = FwReg::VendorHypBmap2.check(0x7).unwrap_err();
        expect![[r#"
            error: `vendor_hyp_bmap_2` cannot be 0x7
              fix: list any of: impl-version, impl-cpus; or write `none`"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_text_that_means_nothing_is_repeated() {
        let error = FwReg::StdBmap.parse("trng,ptp").unwrap_err();
        expect![[r#"
            error: `std_bmap` cannot be `trng,ptp`
              fix: list any of: trng; or write `none`"#]]
        .assert_eq(&report(&error));
        let error = FwReg::Workaround1.parse("").unwrap_err();
        expect![[r#"
            error: `smccc_arch_workaround_1` cannot be ``
              fix: set it to one of: not-avail, avail, not-required"#]]
        .assert_eq(&report(&error));
    }

    fn registers() -> impl Strategy<Value = FwReg> {
        prop::sample::select(FwReg::all().collect::<Vec<_>>())
    }

    /// Legal values and others, near and far.
    fn values() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..0x20, 0x1_0000_u64..0x1_0008, any::<u64>()]
    }

    proptest! {
        #[test]
        fn a_value_is_legal_just_when_its_own_text_means_it(reg in registers(), value in values()) {
            let read = reg.parse(&reg.format(value));
            prop_assert_eq!(read.ok(), reg.check(value).ok().map(|()| value));
        }

        #[test]
        fn no_text_panics(reg in registers(), text in ".{0,40}") {
            let read = reg.parse(&text);
            prop_assert!(read.is_err() || reg.check(read.unwrap()).is_ok());
        }
    }
}
