use super::*;
use crate::{
    report::{gather::Gathered, scene::Scene},
    rules::testing::{model, waiter},
};

fn page(model: &crate::model::Model) -> String {
    let incident = Incident::new(model, Gathered::default(), Vec::new(), Scene::default());
    let mut page = Vec::new();
    write(&mut page, &incident).unwrap();
    String::from_utf8(page).unwrap()
}

#[test]
fn a_page_of_nothing() {
    let page = page(&crate::model::Model::default());
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert!(page.contains("No rule found anything wrong."));
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn the_policy_names_the_very_script_and_style() {
    let page = page(&crate::model::Model::default());
    let between = |from: &str, to: &str| {
        let at = page.find(from).unwrap() + from.len();
        page[at..at + page[at..].find(to).unwrap()].to_owned()
    };
    for (from, to) in [("<style>", "</style>"), ("<script>", "</script>")] {
        assert!(page.contains(&hash(&between(from, to))), "{from}");
    }
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "an address"
    );
    assert!(!page.contains(" style="), "the policy forbids these");
}

#[test]
fn a_circle_is_drawn_as_one() {
    let model = model(&[
        waiter(10).at(1).long(5).held_by(11, "waiting").blocked(),
        waiter(11).at(2).long(9).held_by(10, "waiting").blocked(),
        waiter(12).at(1).long(3).held_by(11, "waiting").blocked(),
    ]);
    let page = page(&model);
    assert_eq!(page.matches("class=\"box bad\"").count(), 2, "{page}");
    assert_eq!(page.matches("class=\"box\"").count(), 1);
    assert_eq!(page.matches("<path class=\"edge").count(), 3);
}

#[test]
fn what_is_left_out_is_said() {
    let waiters: Vec<_> = (10..400)
        .map(|tid| {
            waiter(tid)
                .at(u64::from(tid))
                .long(5)
                .held_by(9, "running")
                .blocked()
        })
        .collect();
    let page = page(&model(&waiters));
    assert!(page.contains("more tasks that are not shown"), "{page}");
    assert!(page.contains("more locks that are not shown"));
    assert!(page.contains("Not drawn: 350 tasks that waited less."));
    assert!(page.len() < 1 << 20, "{}", page.len());
}
