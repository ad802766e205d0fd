//! Placeholder: written elsewhere.
