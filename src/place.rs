//! Where something is: in this process, or, with the feature `remote`, in another one, which is asked over a link.

/// Calls a method of what is in a `Place`, wherever that is.
macro_rules! wherever {
    ($place:expr, $method:ident($($argument:expr),*)) => {
        match &$place {
            Place::Local(local) => local.$method($($argument),*),
            #[cfg(feature = "remote")]
            Place::Remote(remote) => remote.$method($($argument),*),
        }
    };
}
pub(crate) use wherever;

/// As [`wherever`], of a hub, which may also be that of a cluster: of connections here and on other nodes.
macro_rules! wherever_of_hub {
    ($place:expr, $method:ident($($argument:expr),*)) => {
        match &$place {
            Place::Local(local) => local.$method($($argument),*),
            #[cfg(feature = "remote")]
            Place::Remote(remote) => remote.$method($($argument),*),
            #[cfg(feature = "cluster")]
            Place::Clustered(clustered) => clustered.$method($($argument),*),
        }
    };
}
pub(crate) use wherever_of_hub;
