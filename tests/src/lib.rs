//! The namespace harness.
