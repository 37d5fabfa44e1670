//! Events through the crate `tracing`, or nothing without the feature of that name.

#![allow(unused_imports, unused_macros)] // which of them are used depends on the features

#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error, info, warn};

/// Takes what `tracing`'s macros take and uses the values, so that nothing is unused without the feature.
#[cfg(not(feature = "tracing"))]
macro_rules! nothing {
    (@ $message:literal $(,)?) => {};
    (@ $name:ident = $value:expr $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@ $name:ident = % $value:expr $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@ $name:ident = ? $value:expr $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@ % $value:ident $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@ ? $value:ident $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@ $value:ident $(, $($rest:tt)*)?) => { _ = &$value; $($crate::log::nothing!(@ $($rest)*);)? };
    (@) => {};
    ($($event:tt)*) => {{ $crate::log::nothing!(@ $($event)*); }};
}
#[cfg(not(feature = "tracing"))]
pub(crate) use nothing;
#[cfg(not(feature = "tracing"))]
pub(crate) use nothing as debug;
#[cfg(not(feature = "tracing"))]
pub(crate) use nothing as error;
#[cfg(not(feature = "tracing"))]
pub(crate) use nothing as info;
#[cfg(not(feature = "tracing"))]
pub(crate) use nothing as warn;
