//! Sizes of memory as people write them: `512M`, `2GiB`, or a bare number of
//! MiB, which is what a bare number means to QEMU, kvmtool and Firecracker.

use kedge_diag::Fix;

/// A text that is no size of memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    /// It does not start with a whole number.
    #[error("`{0}` does not start with a whole number")]
    NoNumber(String),
    /// What follows the number means nothing.
    #[error("`{0}` is no unit of memory")]
    Unit(String),
    /// It is nothing.
    #[error("there is no machine without memory")]
    Zero,
    /// It does not fit 64 bits of bytes.
    #[error("`{0}` is more than a computer can address")]
    TooLarge(String),
}

impl Fix for BadSize {
    fn fix(&self) -> Option<String> {
        Some(
            "write a whole number with K, M, G or T (powers of 1024), as in 512M or 2G; \
             without a unit it counts MiB"
                .to_owned(),
        )
    }
}

/// The bytes in `text`.
///
/// # Errors
/// It is no size, or none that memory can have.
pub(crate) fn parse(text: &str) -> Result<u64, BadSize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(BadSize::NoNumber(text.to_owned()));
    }
    let bytes_each = unit_bytes(unit.trim_start()).ok_or_else(|| BadSize::Unit(unit.to_owned()))?;
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes_each));
    match bytes {
        Some(0) => Err(BadSize::Zero),
        Some(bytes) => Ok(bytes),
        None => Err(BadSize::TooLarge(text.to_owned())),
    }
}

/// The bytes in one `unit`. `MB` is left out: some mean 1000 by it, some 1024.
fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "k" | "kib" => 1 << 10,
        "" | "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn why_not(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("64K"), Ok(64 << 10));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("2 g"), Ok(2 << 30));
        assert_eq!(parse("1t"), Ok(1 << 40));
    }

    #[test]
    fn a_bare_number_counts_mebibytes() {
        assert_eq!(parse("128"), Ok(128 << 20));
    }

    #[test]
    fn what_is_no_size_is_named() {
        expect!["`lots` does not start with a whole number"].assert_eq(&why_not("lots"));
        expect!["`` does not start with a whole number"].assert_eq(&why_not(""));
        expect!["`-1` does not start with a whole number"].assert_eq(&why_not("-1"));
        expect!["`MB` is no unit of memory"].assert_eq(&why_not("512MB"));
        expect!["`.5G` is no unit of memory"].assert_eq(&why_not("1.5G"));
        expect!["there is no machine without memory"].assert_eq(&why_not("0"));
        expect!["`16777216T` is more than a computer can address"].assert_eq(&why_not("16777216T"));
        expect!["`99999999999999999999` is more than a computer can address"]
            .assert_eq(&why_not("99999999999999999999"));
    }
}
