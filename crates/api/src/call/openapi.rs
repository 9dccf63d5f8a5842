//! The OpenAPI document as it is in the program: without the white space between its parts,
//! which is a third of it.

/// As people read it.
const WRITTEN: &[u8] = include_bytes!("../../../../resources/api/openapi.yaml");

/// Without white space outside of strings.
pub(super) const TEXT: &str = match str::from_utf8(&BYTES) {
    Ok(text) => text,
    Err(_) => "",
};
const _: () = assert!(!TEXT.is_empty(), "the document is UTF-8");

const LENGTH: usize = squeeze::<0>().1;
static BYTES: [u8; LENGTH] = squeeze::<LENGTH>().0;

/// The first bytes of the document without its white space, and how many there are in all.
const fn squeeze<const N: usize>() -> ([u8; N], usize) {
    let (mut bytes, mut length, mut at) = ([0; N], 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    while at < WRITTEN.len() {
        let byte = WRITTEN[at];
        if in_string || !byte.is_ascii_whitespace() {
            if length < N {
                bytes[length] = byte;
            }
            length += 1;
        }
        if byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && byte == b'\\' && !escaped;
        at += 1;
    }
    (bytes, length)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn nothing_but_white_space_is_left_out() {
        let written: Value = serde_json::from_slice(WRITTEN).unwrap();
        assert_eq!(serde_json::from_str::<Value>(TEXT).unwrap(), written);
        assert_eq!(TEXT.len(), written.to_string().len());
    }
}
