//! The messages of pprof's `profile.proto`, as far as they are written; the numbers are those of
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>.

/// All of a profile. Strings are indexes into `string_table`, whose first entry is empty.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Profile {
    /// What each number of a sample means.
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ValueType>,
    /// Stacks with their numbers.
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<Sample>,
    /// Places in code.
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<Function>,
    /// All strings.
    #[prost(string, repeated, tag = "6")]
    pub(super) string_table: Vec<String>,
    /// Wall-clock time of the start.
    #[prost(int64, tag = "9")]
    pub(super) time_nanos: i64,
    /// Length.
    #[prost(int64, tag = "10")]
    pub(super) duration_nanos: i64,
    /// What there is one of for each period.
    #[prost(message, optional, tag = "11")]
    pub(super) period_type: Option<ValueType>,
    /// Between samples.
    #[prost(int64, tag = "12")]
    pub(super) period: i64,
    /// Indexes of texts for whoever reads it.
    #[prost(int64, repeated, tag = "13")]
    pub(super) comment: Vec<i64>,
    /// Which number is shown first.
    #[prost(int64, tag = "14")]
    pub(super) default_sample_type: i64,
}

/// What a number means.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ValueType {
    /// What is counted.
    #[prost(int64, tag = "1")]
    pub(super) r#type: i64,
    /// In what.
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

/// A stack with its numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sample {
    /// The innermost place first.
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    /// One for each type.
    #[prost(int64, repeated, tag = "2")]
    pub(super) value: Vec<i64>,
    /// What else is known of it.
    #[prost(message, repeated, tag = "3")]
    pub(super) label: Vec<Label>,
}

/// Something known of a sample.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Label {
    /// What.
    #[prost(int64, tag = "1")]
    pub(super) key: i64,
    /// Its value.
    #[prost(int64, tag = "2")]
    pub(super) str: i64,
}

/// A place in code.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Location {
    /// Not zero.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Its address; 0: not known.
    #[prost(uint64, tag = "3")]
    pub(super) address: u64,
    /// The functions there: what was inlined comes before what it was inlined into.
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<Line>,
}

/// A function at a place.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Line {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
    /// In its file; 0: not known.
    #[prost(int64, tag = "2")]
    pub(super) line: i64,
}

/// A function.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Function {
    /// Not zero.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Its name.
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    /// The name in the binary.
    #[prost(int64, tag = "3")]
    pub(super) system_name: i64,
    /// Its file.
    #[prost(int64, tag = "4")]
    pub(super) filename: i64,
}
