//! The kernel's command line: what a kernel would cut off or misread is refused.

use kedge_diag::Fix;
use linux_loader::cmdline::Cmdline;

/// The longest command line in bytes: arm64's `COMMAND_LINE_SIZE` without the
/// NUL at its end (Linux, arch/arm64/include/uapi/asm/setup.h).
pub const MOST: usize = COMMAND_LINE_SIZE - 1;

const COMMAND_LINE_SIZE: usize = 2048;

/// Why a command line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// The kernel would ignore the end of it.
    #[error("the command line is {length} bytes long, arm64 kernels read {MOST}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It holds what is neither printable ASCII nor a space.
    #[error("the command line has a character that is not printable ASCII at byte {at}: {found:?}")]
    NotPrintable {
        /// Where, from 0.
        at: usize,
        /// What stands there.
        found: char,
    },
}

impl Fix for CmdlineError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::TooLong { length } => {
                format!("shorten it by {} bytes, or move settings into the initrd", length - MOST)
            }
            Self::NotPrintable { .. } => "remove the character".to_owned(),
        })
    }
}

/// Checks that a kernel will read `text` as it stands.
///
/// # Errors
/// It is too long, or holds characters that are not printable ASCII.
pub fn check(text: &str) -> Result<(), CmdlineError> {
    let length = text.len();
    if length > MOST {
        return Err(CmdlineError::TooLong { length });
    }
    let mut cmdline = Cmdline::new(COMMAND_LINE_SIZE).expect("the capacity is not zero");
    match (cmdline.insert_str(text), text.char_indices().find(|(_, c)| !matches!(c, ' '..='~'))) {
        (Err(_), Some((at, found))) => Err(CmdlineError::NotPrintable { at, found }),
        (Err(_), None) => Err(CmdlineError::TooLong { length }),
        (Ok(()), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;

    #[test]
    fn a_command_line_up_to_the_kernels_limit_is_taken() {
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("  console=ttyS0 a=\"b c\" -- init args "), Ok(()));
        assert_eq!(check(&"x".repeat(2047)), Ok(()));
    }

    #[test]
    fn a_longer_one_is_refused_with_both_lengths() {
        expect![[r#"
            error: the command line is 2050 bytes long, arm64 kernels read 2047
              fix: shorten it by 3 bytes, or move settings into the initrd"#]]
        .assert_eq(&report(&check(&"x".repeat(2050)).unwrap_err()));
    }

    #[test]
    fn what_is_not_printable_is_refused() {
        expect![[r#"
            error: the command line has a character that is not printable ASCII at byte 2: '\n'
              fix: remove the character"#]]
        .assert_eq(&report(&check("ab\ncd").unwrap_err()));
        assert_eq!(check("ä"), Err(CmdlineError::NotPrintable { at: 0, found: 'ä' }));
        assert!(check("a\0b").is_err());
    }
}
