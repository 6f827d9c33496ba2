//! What the environment says of the terminal.

use crate::tui::Options;

#[test]
fn the_environment_decides_on_colours_and_signs() {
    for (variables, color, unicode) in [
        (&[][..], true, false),
        (&[("LANG", "en_US.UTF-8")], true, true),
        (&[("LANG", "en_US.UTF-8"), ("NO_COLOR", "")], true, true),
        (&[("LANG", "C.utf8"), ("NO_COLOR", "1")], false, true),
        (&[("LANG", "C.UTF-8"), ("LC_ALL", "C")], true, false),
        (&[("LANG", "C.UTF-8"), ("LC_ALL", "")], true, true),
        (&[("TERM", "dumb")], false, false),
    ] {
        let options = Options::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        assert_eq!(
            (options.color, options.unicode),
            (color, unicode),
            "{variables:?}"
        );
    }
}
