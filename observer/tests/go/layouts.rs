//! Layouts: the table against what programs say of themselves, and programs that are believed before the table.

use observer::runtimes::go::{Refused, Target, table_of};
use serde_json::Value;

use crate::program::{Form, Program, arm64_programs, name, skip, with_each};

pub(crate) const TABLE: &str = include_str!("../../src/runtimes/go/layouts.json");

#[test]
fn the_table_is_what_the_releases_say() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    with_each(name!(), &[Form::Normal], |program| {
        let own = table_of(program.path()).unwrap().unwrap();
        let mut known = known(&table, program).as_object().unwrap().clone();
        known.remove("arm64");
        let what = format!("{program:?}: run `cargo xtask go-layouts`");
        assert_eq!(Value::Object(known), own, "{what}");
    });
}

/// What the table has of a program's release.
fn known<'a>(table: &'a Value, program: &Program) -> &'a Value {
    let minor: Vec<&str> = program.release.split('.').take(2).collect();
    let minor = minor.join(".");
    &table["releases"][minor.trim_start_matches("go")]
}

/// On arm64 the same structs are laid out in the same way, but for those that the table has for it.
#[test]
fn the_table_is_what_the_releases_say_for_arm64() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    let mut compared = 0;
    for program in arm64_programs() {
        let Some(own) = table_of(program.path()).unwrap() else {
            assert_ne!(program.form, Form::Arm64);
            continue;
        };
        let mut known = known(&table, program).as_object().unwrap().clone();
        let differ = known.remove("arm64").unwrap();
        let differ = differ.as_object().unwrap();
        for (name, fields) in differ {
            assert_ne!(known.get(name), Some(fields), "{program:?}: {name}");
        }
        known.extend(differ.clone());
        let what = format!("{program:?}: run `cargo xtask go-layouts`");
        assert_eq!(Value::Object(known), own, "{what}");
        compared += 1;
    }
    if compared == 0 {
        skip(name!(), "no Go toolchain: `cargo xtask test` installs some");
    }
}

#[test]
fn debug_information_is_used_where_there_is_some() {
    with_each(
        name!(),
        &[Form::Normal, Form::Stripped, Form::Pie, Form::Cgo],
        |program| {
            let scene = program.play(&["channels"]);
            let inventory = scene.look();
            let has_some = matches!(program.form, Form::Normal | Form::Pie);
            assert_eq!(inventory.debug_info, has_some, "{program:?}");
            assert_eq!(table_of(program.path()).unwrap().is_some(), has_some);
            assert_eq!(inventory.total, scene.truth.goroutines);
        },
    );
}

#[test]
fn with_debug_information_any_release_is_known() {
    with_each(name!(), &[Form::Normal], |program| {
        let scene = program.claiming(29).play(&["channels"]);
        let inventory = scene.look();
        let what = format!("{program:?}: {inventory:#?}");
        assert!(
            inventory.debug_info && inventory.layout_of.is_none(),
            "{what}"
        );
        assert_eq!(inventory.total, scene.truth.goroutines, "{what}");
        for goid in scene.truth.stacks.keys() {
            assert!(inventory.goroutine(*goid).is_some(), "{what}");
        }
    });
}

/// Offsets in the debug information that are not those of the program: it is seen that they do not fit, and the
/// table is used.
#[test]
fn forged_debug_information_is_not_believed() {
    with_each(name!(), &[Form::Normal], |program| {
        let scene = program.with_debug_info_of_nothing().play(&["channels"]);
        match Target::open(scene.pid()) {
            Ok(_) => {
                let inventory = scene.look();
                assert!(!inventory.debug_info, "{program:?}");
                let said = inventory
                    .notes
                    .iter()
                    .any(|note| note.contains("debug information"));
                assert!(said, "{program:?}: {:?}", inventory.notes);
                assert_eq!(inventory.total, scene.truth.goroutines);
            }
            Err(Refused::Gone) => {}
            Err(other) => panic!("{program:?}: {other}"),
        }
    });
}
