//! overlayd
fn main() {}
