pub mod client;
pub mod envelope;
pub mod feed;
pub mod lane;
pub mod parcel;
pub mod region;
pub mod retry;
pub mod settle;
