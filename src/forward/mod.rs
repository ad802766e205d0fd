pub mod envelope;
pub mod feed;
pub mod lane;
pub mod region;
pub mod retry;
pub mod settle;
