//! Settings that are lists: separated by commas in flags and variables, arrays in the file.

use super::directory::NONE;
use super::value::Value;
use super::{describe_toml, one_line};

/// What a list may hold.
#[derive(Debug)]
pub(crate) struct List {
    /// What stands for one item in `--help`.
    pub(super) placeholder: &'static str,
    /// Completes "expected …".
    pub(super) expected: &'static str,
    pub(super) default: &'static [&'static str],
    /// Typed as `none`, and `[]` in the file.
    pub(super) may_be_empty: bool,
    pub(super) is_item: fn(&str) -> bool,
}

impl List {
    pub(super) fn default_value(&self) -> Value {
        Value::List(self.default.iter().map(|item| (*item).to_owned()).collect())
    }

    /// The default, for `--help`.
    pub(super) fn shown_default(&self) -> String {
        if self.default.is_empty() { NONE.to_owned() } else { self.default.join(",") }
    }

    pub(super) fn expected(&self) -> String {
        let or_none = if self.may_be_empty { format!(", or `{NONE}`") } else { String::new() };
        format!("{}{or_none}", self.expected)
    }

    pub(super) fn parse(&self, typed: &str) -> Option<Value> {
        let items = self.items(typed);
        let is_list =
            (self.may_be_empty || !items.is_empty()) && items.iter().all(|item| (self.is_item)(item));
        is_list.then(|| Value::List(items.into_iter().map(str::to_owned).collect()))
    }

    pub(super) fn parse_toml(&self, value: &toml::Value) -> Option<Value> {
        let items = value.as_array()?;
        let is_list =
            (self.may_be_empty || !items.is_empty()) && items.iter().all(|item| self.is_toml_item(item));
        is_list
            .then(|| Value::List(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()))
    }

    /// What is wrong with what [`parse`](Self::parse) does not take: an item, or all of it.
    pub(super) fn wrong(&self, typed: &str) -> String {
        let wrong = self.items(typed).into_iter().find(|item| !(self.is_item)(item)).unwrap_or(typed);
        format!("`{}`", one_line(wrong))
    }

    /// Likewise, in the file.
    pub(super) fn wrong_toml(&self, value: &toml::Value) -> String {
        let Some(items) = value.as_array() else { return describe_toml(value) };
        let wrong = items.iter().find(|item| !self.is_toml_item(item));
        wrong.map_or_else(|| "an empty list".to_owned(), describe_toml)
    }

    fn items<'a>(&self, typed: &'a str) -> Vec<&'a str> {
        if self.may_be_empty && typed == NONE {
            Vec::new()
        } else {
            typed.split(',').map(str::trim).collect()
        }
    }

    fn is_toml_item(&self, item: &toml::Value) -> bool {
        item.as_str().is_some_and(self.is_item)
    }
}
