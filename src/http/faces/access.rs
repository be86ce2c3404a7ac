//! Who may use the faces. The one place where that is decided.

use axum::http::StatusCode;

use crate::http::door::caller::Whose;
use crate::http::error::Error;

/// What a face does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Shows services and nodes.
    Read,
    /// Shows all there is, what checks send included.
    ReadAll,
    /// Changes anything.
    WriteAll,
}

/// Lets a caller through, or refuses it. Without passwords, what shows or changes everything is for callers on this machine.
pub(super) fn allow(whose: &Whose, need: Need) -> Result<(), Error> {
    let what = match need {
        Need::Read => return Ok(()),
        Need::ReadAll => "the whole registry is shown",
        Need::WriteAll => "imports are taken",
    };
    if whose.here {
        return Ok(());
    }
    let text = match need {
        Need::WriteAll => format!("{what} from callers on this machine only"),
        _ => format!("{what} to callers on this machine only"),
    };
    Err(Error::new(StatusCode::FORBIDDEN, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;
    use crate::registry::Caller;

    #[test]
    fn everything_is_for_callers_on_this_machine() {
        let whose = |here| {
            let caller = Caller { node: NodeName::parse("n1").unwrap(), address: None };
            Whose { caller, here }
        };
        for need in [Need::Read, Need::ReadAll, Need::WriteAll] {
            assert_eq!(allow(&whose(true), need), Ok(()));
        }
        assert_eq!(allow(&whose(false), Need::Read), Ok(()));
        for (need, text) in [
            (Need::ReadAll, "the whole registry is shown to callers on this machine only"),
            (Need::WriteAll, "imports are taken from callers on this machine only"),
        ] {
            let refused = allow(&whose(false), need).unwrap_err();
            assert_eq!((refused.status, refused.text.as_str()), (StatusCode::FORBIDDEN, text));
        }
    }
}
