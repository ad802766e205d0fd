//! (to be written)

pub mod parcel;
