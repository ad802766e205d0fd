//! A whole gateway in one thread, under a seed.

pub(crate) mod archives;
pub(crate) mod configs;
pub(crate) mod disk;
pub(crate) mod exec;
pub(crate) mod ground;
pub(crate) mod letters;
pub(crate) mod life;
pub(crate) mod network;
pub(crate) mod truth;
pub(crate) mod world;
