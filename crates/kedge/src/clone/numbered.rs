//! Values in which `{n}` stands for a clone's number.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use kedge_api::call::CloneMachine;

/// What stands for the number.
pub(super) const PLACE: &str = CloneMachine::PLACE;

/// `value` for the clone with this number.
pub(super) fn numbered(value: &OsStr, number: u32) -> OsString {
    let digits = number.to_string();
    let mut rest = value.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        match rest.strip_prefix(PLACE.as_bytes()) {
            Some(behind) => {
                bytes.extend_from_slice(digits.as_bytes());
                rest = behind;
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_gets_the_number_and_all_else_stays() {
        let value = OsStr::new("id=root,path=/d/{n}/root-{n}.{m}{n");
        assert_eq!(numbered(value, 12), "id=root,path=/d/12/root-12.{m}{n");
        assert_eq!(numbered(OsStr::from_bytes(b"\xff{n}"), 3), OsStr::from_bytes(b"\xff3"));
    }
}
