//! Where the guest without a header is linked to: RAM base + 0x80000.

fn main() {
    println!("cargo:rerun-if-changed=layout.ld");
    println!("cargo:rustc-link-arg-bin=flat=--defsym=_load=0x80080000");
}
