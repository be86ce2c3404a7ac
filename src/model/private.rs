//! Files that hold secrets: who may open them. Pure.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What to do about a file that others may open, as the end of a sentence; none where nothing is to be done. `ours` is the user that we
/// run as: a file of another user (root's, say) is read by us as its group, so that only what everybody may counts.
pub fn remedy(data: &Metadata, ours: u32) -> Option<&'static str> {
    match data.uid() == ours {
        true => (data.mode() & 0o077 != 0).then_some("can be opened by others: chmod go= it"),
        false => (data.mode() & 0o007 != 0).then_some("can be opened by everybody: chmod o= it"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn of_a_file_of_ours_the_group_is_others_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("key")).unwrap();
        let own = file.metadata().unwrap().uid();
        for (mode, ours, theirs) in [
            (0o600, false, false),
            (0o400, false, false),
            (0o640, true, false),
            (0o620, true, false),
            (0o644, true, true),
            (0o604, true, true),
            (0o602, true, true),
        ] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            let data = file.metadata().unwrap();
            assert_eq!(
                remedy(&data, own).is_some_and(|said| said.ends_with("chmod go= it")),
                ours,
                "{mode:o}"
            );
            assert_eq!(
                remedy(&data, own + 1).is_some_and(|said| said.ends_with("chmod o= it")),
                theirs,
                "{mode:o}"
            );
        }
    }
}
