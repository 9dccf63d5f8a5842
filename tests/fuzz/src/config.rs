//! What users say of devices: the values of flags, and bodies of the configuration file.

use kedge_devices::virtio::catalog::KINDS;

/// The words of a user: the first byte says of which device, the second in which form.
pub fn config(data: &[u8]) {
    let [which, form, words @ ..] = data else { return };
    let kind = KINDS[usize::from(*which) % KINDS.len()];
    let parsed = match (form % 2, std::str::from_utf8(words)) {
        (0, Ok(text)) => (kind.from_flag)(text, 0),
        (_, Ok(text)) => match serde_json::from_str(text) {
            Ok(value) => (kind.from_json)(value),
            Err(_) => return,
        },
        (_, Err(_)) => return,
    };
    match parsed {
        // What is said of it is understood again.
        Ok(config) => drop((kind.from_json)(config.to_json()).expect("it was well-formed")),
        Err(error) => drop(kedge_diag::report(&error)),
    }
}
