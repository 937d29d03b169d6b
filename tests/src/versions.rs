//! Versions of IP.

/// Which versions of IP are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

impl Versions {
    /// Whether IPv4 is spoken.
    #[must_use]
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Whether IPv6 is spoken.
    #[must_use]
    pub fn v6(self) -> bool {
        self != Self::V4
    }

    /// Whether one is spoken by both.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        (self.v4() && other.v4()) || (self.v6() && other.v6())
    }

    /// What either speaks.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}
