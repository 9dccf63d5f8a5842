//! Real guests on real KVM: what kedge does, seen from inside and from outside.
#![forbid(unsafe_code)]
