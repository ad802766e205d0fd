//! What a command's exit code says (sysexits where they fit).

/// Done.
pub const OK: u8 = 0;
/// What was looked at is not as it should be.
pub const CHECK_FAILED: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 64;
/// Something this needs is not there: a port, a kernel feature, a service.
pub const DEPENDENCY_MISSING: u8 = 69;
/// A file or a socket failed.
pub const IO: u8 = 74;
/// The configuration cannot be used.
pub const BAD_CONFIGURATION: u8 = 78;
