use super::*;

const SHOP: &str = r#"
[[pair]]
provider = "shop"
begin = "wait__start"
end = ["wait__done", "wait__failed"]
resource = [1, 0]
kind = "semaphore"
lock.class = "usdt"
lock.name = "till {1:x} of {2:s3}, {4:i}"
"#;

#[test]
fn the_packs_that_are_built_in_are_right() {
    for (name, _) in BUILT_IN {
        let pairs = load(&[name.to_owned()]).unwrap();
        assert!(!pairs.is_empty(), "{name}");
    }
    let all: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).into()).collect();
    assert!(load(&all).unwrap().len() > 8);
}

#[test]
fn a_pair_says_what_is_read_and_how_it_is_named() {
    let pair = &parse(SHOP).unwrap()[0];
    assert_eq!(pair.slots, [1, 0, 4, 2, 3]);
    assert_eq!(
        (pair.text, pair.kind),
        (Some((2, Some(3))), Kind::Semaphore)
    );
    assert_eq!(pair.ends, ["wait__done", "wait__failed"]);
    let args = [255, 7, u64::MAX, 0, 4];
    let name = |text| {
        let args = &args;
        pair.name_of(&Values { args, text })
    };
    assert_eq!(name(Some("Nord")).unwrap(), "till 0xff of Nord, -1");
    assert_eq!(name(None).unwrap(), "till 0xff of ?, -1");
}

#[test]
fn a_name_may_depend_on_an_argument() {
    let pairs = load(&["postgresql".into()]).unwrap();
    let lock = &pairs[0];
    let name = |args: &[u64]| lock.name_of(&Values { args, text: None });
    assert_eq!(
        name(&[5, 16_385, 0, 0, 0]).unwrap(),
        "relation 16385 of database 5"
    );
    assert_eq!(name(&[731, 0, 0, 0, 5]).unwrap(), "transaction 731");
    assert_eq!(name(&[1, 2, 3, 4, 99]).unwrap(), "lock type 99: 1/2/3/4");
    // Text that could not be read is no name.
    let tranche = &pairs[1];
    let args = &[0x1000];
    assert_eq!(tranche.name_of(&Values { args, text: None }), None);
}

#[test]
fn what_is_wrong_is_said_with_the_pair() {
    let pair =
        |more: &str| format!("[[pair]]\nprovider = \"p\"\nbegin = \"b\"\nend = \"e\"\n{more}\n");
    assert!(parse(&pair("")).is_ok());
    for (more, why) in [
        ("resource = 12", "at most twelve"),
        ("resource = -1", "no pack"),
        ("resource = [0,1,2,3,4,5,6,7,8]", "at most 8"),
        ("kind = \"nonsense\"", "unknown variant"),
        ("lock.class = \"nonsense\"", "unknown variant"),
        ("colour = 1", "unknown field"),
        ("lock.name = \"{\"", "brace"),
        ("lock.name = \"}\"", "brace"),
        ("lock.name = \"{0:}\"", "is no argument"),
        ("lock.name = \"{+1}\"", "is no argument"),
        ("lock.name = \"{0:s} {1:s}\"", "one argument only"),
        ("lock.names.0 = \"x\"", "lock.by"),
        ("lock.by = 0\nlock.names.x = \"x\"", "no number"),
        ("lock.fleeting.1 = \"x\"", "lock.by"),
        ("lock.by = 0\nlock.fleeting.32 = \"x\"", "greater than 31"),
    ] {
        let error = format!("{:#}", parse(&pair(more)).unwrap_err());
        assert!(error.contains(why), "{more}: {error}");
    }
    for text in ["", "pair = 1", "[[pair]]\nprovider = \"p\"", "\u{0}"] {
        assert!(parse(text).is_err(), "{text}");
    }
    let same = "[[pair]]\nprovider = \"p\"\nbegin = \"b\"\nend = \"b\"\n";
    assert!(parse(same).is_err());
    let error = format!("{:#}", load(&["nowhere".into()]).unwrap_err());
    assert!(
        error.contains("postgresql") && error.contains("nowhere"),
        "{error}"
    );
    assert!(load(&["/proc".into()]).is_err());
}
