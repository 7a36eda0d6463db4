//! The only file that knows whether there is a logger.

macro_rules! debug {
    ($($argument:tt)*) => {{
        #[cfg(feature = "defmt")]
        defmt::debug!($($argument)*);
    }};
}

pub(crate) use debug;
