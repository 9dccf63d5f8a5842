//! How a guest says that tables may be cached and shared: what KVM cannot do for it, it
//! does as well as it can.

/// Where in a register the three fields are: bits of the inner cacheability, of the
/// shareability and of the outer cacheability.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) inner: u32,
    pub(crate) share: u32,
    pub(crate) outer: u32,
}

/// Of `GICR_PROPBASER` and `GICR_PENDBASER`.
pub(crate) const REDISTRIBUTOR: Fields = Fields { inner: 7, share: 10, outer: 56 };
/// Of `GITS_CBASER` and `GITS_BASER<n>`.
pub(crate) const SERVICE: Fields = Fields { inner: 59, share: 10, outer: 53 };

/// The register with what KVM makes of the three fields.
pub(crate) fn sanitised(value: u64, fields: Fields) -> u64 {
    const WRITE_BACK: u64 = 3;
    let field = |shift: u32, mask: u64| value >> shift & mask;
    let inner = match field(fields.inner, 7) {
        0 | 1 => WRITE_BACK,
        other => other,
    };
    let share = match field(fields.share, 3) {
        2 => 1,
        other => other,
    };
    let outer = match field(fields.outer, 7) {
        kept @ (0 | 1) => kept,
        _ => 0,
    };
    let fields = [(fields.inner, 7, inner), (fields.share, 3, share), (fields.outer, 7, outer)];
    fields
        .into_iter()
        .fold(value, |value, (shift, mask, field)| value & !(mask << shift) | field << shift)
}
