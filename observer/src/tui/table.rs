//! Draws a table: finds the columns that fit the width, then the visible rows.

use ratatui::{layout::Rect, style::Style};

use super::{
    canvas::Canvas,
    list::List,
    rows::{Column, Context, Record, Tone},
};

/// Columns at the left edge for the mark of the selected row.
pub(super) const GUTTER: u16 = 2;
/// A row is marked as new for this long.
const NEW_NS: u64 = 2_000_000_000;
/// From this rank on a column is rarely asked for.
const RARE: u8 = 6;
/// From this width on there is room for wider gaps.
const WIDE: u16 = 140;
/// Columns that the flexible column has at most: beyond, the eye loses its row.
const FLEXIBLE: u16 = 48;

/// A column that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Index among all columns.
    column: usize,
    /// Columns of the terminal.
    width: u16,
}

/// Finds the columns that fit: the least important are dropped until the others have room, never the
/// one that sorts; what is left widens the others, the most important first. Columns that are rarely asked for
/// are shown only where the important ones have all the room that they want.
fn fit<R: Record>(sort: usize, width: u16, gap: u16) -> Vec<Place> {
    let columns: &[Column<R>] = R::columns();
    let min = |index: usize| {
        let arrow = u16::from(index == sort);
        columns[index]
            .min
            .max(columns[index].title.len() as u16 + arrow)
    };
    let rank = |index: usize| (index != sort, columns[index].rank);
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    kept.sort_by_key(|index| rank(*index));
    let mut used: u16 = kept.iter().map(|index| min(*index) + gap).sum();
    let wants = |kept: &[usize]| {
        let rarely = |index: &usize| columns[*index].rank >= RARE;
        let last = kept.last().copied().filter(rarely);
        let others = kept.iter().filter(|index| Some(**index) != last);
        let others = others.map(|&index| match columns[index].rank {
            RARE.. => min(index) + gap,
            _ => columns[index].want.max(min(index)) + gap,
        });
        last.map_or(0, |index| min(index) + gap + others.sum::<u16>())
    };
    let room = width.saturating_add(gap);
    while (used > room || wants(&kept) > room) && kept.len() > 1 {
        let dropped = kept.pop().map_or(0, |index| min(index) + gap);
        used -= dropped;
    }
    let mut spare = width.saturating_add(gap).saturating_sub(used);
    let mut places: Vec<Place> = kept
        .into_iter()
        .map(|index| {
            let more = columns[index].want.saturating_sub(min(index)).min(spare);
            spare -= more;
            Place {
                column: index,
                width: min(index) + more,
            }
        })
        .collect();
    if let Some(place) = places.iter_mut().find(|place| place.column == R::FLEXIBLE) {
        place.width += spare.min(FLEXIBLE.saturating_sub(place.width));
    }
    places.sort_by_key(|place| place.column);
    places
}

/// Draws a list into an area, its first line being the titles. Says where the title of each column stands.
pub(super) fn draw<R: Record>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    list: &List<R>,
) -> Vec<(Rect, usize)> {
    if area.height == 0 {
        return Vec::new();
    }
    let gap = if area.width >= WIDE { 2 } else { 1 };
    let room = area.width.saturating_sub(GUTTER);
    let places = fit::<R>(list.sort(), room, gap);
    draw_titles(canvas, area, list, &places, gap);
    let page = list.page();
    let context = Context {
        now_ns: page.now_ns,
        glyphs: canvas.look.glyphs,
        columns: 0,
    };
    let lines = (area.y + 1)..area.bottom();
    for ((line, row), index) in lines.zip(&page.rows).zip(page.first..) {
        let selected = index == list.cursor();
        let row_area = Rect::new(area.x, line, area.width, 1);
        let is_new = |at_ns: u64| page.now_ns.saturating_sub(at_ns) < NEW_NS;
        if selected {
            canvas.put(area.x, line, GUTTER, ">", Style::new());
        } else if row.since_ns().is_some_and(is_new) {
            canvas.put(area.x, line, GUTTER, "+", canvas.look.tone(Tone::Strong));
        }
        draw_row(canvas, row_area, row, &places, gap, context);
        if selected {
            canvas.select(row_area);
        }
    }
    titles(area, &places, gap)
}

/// The selected row: the title and the text of each column.
pub(super) fn text<R: Record>(list: &List<R>, context: Context) -> String {
    let Some(row) = list.selected() else {
        return String::new();
    };
    let cell = |column: &Column<R>| {
        let text = (column.cell)(row, context);
        format!("{}: {}", column.title, context.glyphs.clean(&text))
    };
    let cells: Vec<String> = R::columns().iter().map(cell).collect();
    cells.join("\n")
}

/// The rows of the page, a line each: the title and the text of each column that has one.
pub(super) fn lines<R: Record>(list: &List<R>, context: Context, mark: bool) -> Vec<String> {
    let page = list.page();
    let line = |(row, index): (&R, usize)| {
        let cells = R::columns().iter().filter_map(|column| {
            let text = (column.cell)(row, context);
            let text = context.glyphs.clean(&text);
            let text = text.trim();
            (text != "-" && !text.is_empty()).then(|| format!("{} {text}", column.title))
        });
        let selected = if mark && index == list.cursor() {
            "selected: "
        } else {
            ""
        };
        format!("{selected}{}", cells.collect::<Vec<_>>().join(", "))
    };
    page.rows.iter().zip(page.first..).map(line).collect()
}

fn titles(area: Rect, places: &[Place], gap: u16) -> Vec<(Rect, usize)> {
    let mut x = area.x + GUTTER;
    let title = |place: &Place| {
        let found = (Rect::new(x, area.y, place.width, 1), place.column);
        x += place.width + gap;
        found
    };
    places.iter().map(title).collect()
}

fn draw_titles<R: Record>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    list: &List<R>,
    places: &[Place],
    gap: u16,
) {
    let style = canvas.look.title();
    let mut x = area.x + GUTTER;
    for place in places {
        let column = &R::columns()[place.column];
        let mut title = column.title.to_owned();
        if place.column == list.sort() {
            title.push_str(canvas.look.glyphs.descending(list.descending()));
        }
        if column.right {
            canvas.put_right(x, area.y, place.width, &title, style);
        } else {
            canvas.put(x, area.y, place.width, &title, style);
        }
        x += place.width + gap;
    }
}

fn draw_row<R: Record>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    row: &R,
    places: &[Place],
    gap: u16,
    context: Context,
) {
    let mut x = area.x + GUTTER;
    for place in places {
        let column = &R::columns()[place.column];
        let columns = usize::from(place.width);
        let text = (column.cell)(row, Context { columns, ..context });
        let style = canvas.look.tone((column.tone)(row));
        if column.right {
            canvas.put_right(x, area.y, place.width, &text, style);
        } else {
            canvas.put(x, area.y, place.width, &text, style);
        }
        x += place.width + gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Lock, tui::waiting::Waiting};

    fn shown<R: Record>(width: u16, sort: usize) -> Vec<&'static str> {
        fit::<R>(sort, width - GUTTER, 1)
            .iter()
            .map(|place| R::columns()[place.column].title)
            .collect()
    }

    #[test]
    fn the_least_important_columns_go_first() {
        assert_eq!(
            shown::<Waiting>(80, 0),
            ["AGE", "TASK", "KIND", "LOCK", "HOLDER", "HOLDER DOES"]
        );
        assert_eq!(shown::<Waiting>(40, 0), ["AGE", "TASK", "LOCK"]);
        assert_eq!(shown::<Waiting>(230, 0).len(), Waiting::columns().len());
        assert_eq!(shown::<Waiting>(200, 0).len(), Waiting::columns().len() - 1);
        assert_eq!(shown::<Lock>(200, 0).len(), Lock::columns().len());
    }

    #[test]
    fn the_column_that_sorts_is_always_shown() {
        for (sort, column) in Waiting::columns().iter().enumerate() {
            for width in 30..200 {
                assert!(shown::<Waiting>(width, sort).contains(&column.title));
            }
        }
    }

    #[test]
    fn columns_never_exceed_the_width() {
        for width in 20..300 {
            for gap in [1, 2] {
                for sort in 0..Lock::columns().len() {
                    let places = fit::<Lock>(sort, width, gap);
                    let used: u16 = places.iter().map(|place| place.width + gap).sum();
                    assert!(used <= width + gap, "{width}: {places:?}");
                }
            }
        }
    }
}
