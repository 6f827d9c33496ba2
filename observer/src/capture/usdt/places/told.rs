//! What is told of files that were attached to, and of those that were not: never more than somebody would read.

use super::{Attacher, Found};
use crate::event::Missing;

/// Refusals of one file that are told.
const MAX_TOLD: usize = 16;
/// Files of which nothing was taken that are remembered, so that it is told once.
const MAX_REFUSED: usize = 1_024;

/// What is to be told of files that were attached to.
#[derive(Default)]
pub(in crate::capture) struct Told {
    pub(in crate::capture) attached: Vec<String>,
    pub(in crate::capture) missing: Vec<Missing>,
}

impl Told {
    /// There is no room for another place.
    pub(in crate::capture::usdt) fn full(why: String) -> Told {
        Told {
            attached: Vec::new(),
            missing: vec![Missing {
                feature: "usdt: files that are mapped from now on".into(),
                why,
            }],
        }
    }

    pub(in crate::capture::usdt) fn is_empty(&self) -> bool {
        self.attached.is_empty() && self.missing.is_empty()
    }
}

impl Attacher {
    /// Nothing of a file is wanted. It is not kept: another one may get its inode.
    pub(super) fn refuse_file(&mut self, found: &Found, told: usize) {
        self.finder.refuse(found.identity);
        self.cut_short(told, &found.path);
        let why = &self.told.missing[told..];
        if self.refused.get(&found.path).map(Vec::as_slice) == Some(why) {
            self.told.missing.truncate(told);
            return;
        }
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(found.path.clone(), why.to_vec());
    }

    /// Tells no more of a file's refusals, which are those from `told` on, than somebody would read.
    pub(super) fn cut_short(&mut self, told: usize, path: &str) {
        let more = self.told.missing.len().saturating_sub(told + MAX_TOLD);
        if more > 0 {
            self.told.missing.truncate(told + MAX_TOLD);
            self.told.missing.push(Missing {
                feature: format!("usdt: {path}"),
                why: format!("and {more} more"),
            });
        }
    }
}
