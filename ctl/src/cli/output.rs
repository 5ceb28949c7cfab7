//! What the user sees: tables, JSON, templates, and one line on stderr where something failed.
//!
//! Everything that came from elsewhere (names, commands, messages) is shown without control characters, so that a node's
//! command line cannot write on the user's terminal.

use std::io::{IsTerminal, Write};
use std::str::FromStr;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use portolan::api::client::Failure;
use serde::Serialize;
use serde_json::Value;

use super::template::Template;
use super::terminal;

/// Spaces between two columns, as Docker has them.
const GAP: u16 = 3;

/// What `--format` asked for.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns of one's own choice: `table {{.Name}}\t{{.Driver}}`.
    Columns(Template),
    /// One array.
    Json,
    /// One line an entry.
    Template(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "table" => Ok(Format::Table),
            "json" | "{{json .}}" => Ok(Format::Json),
            _ => match text.strip_prefix("table ") {
                Some(columns) => columns.parse().map(Format::Columns),
                None if text.contains("{{") => text.parse().map(Format::Template),
                None => Err(format!("{text:?} is none of table, json, '{{{{.Name}}}}'")),
            },
        }
    }
}

/// One entry of a listing.
pub struct Row {
    /// The columns of the table.
    pub cells: Vec<String>,
    /// The entry as the API gave it: what `json` prints.
    pub object: Value,
    /// Further fields for templates: Docker's placeholders where they differ from the API's.
    pub extra: Value,
}

impl Row {
    /// A row that shows `object` in `cells`.
    pub fn new<T: Serialize>(object: &T, cells: Vec<String>, extra: Value) -> Row {
        Row { cells, object: serde_json::to_value(object).unwrap_or_default(), extra }
    }

    /// All fields a template may name.
    fn fields(&self) -> Value {
        let mut fields = self.object.clone();
        if let (Value::Object(fields), Value::Object(extra)) = (&mut fields, &self.extra) {
            fields.extend(extra.clone());
        }
        fields
    }
}

/// Prints a listing.
///
/// # Errors
/// A template that names a field there is not.
pub fn list(format: &Format, headers: &[&str], rows: &[Row]) -> Result<(), Failure> {
    match format {
        Format::Table => table(headings(headers), rows.iter().map(|r| r.cells.clone())),
        Format::Columns(template) => {
            let mut lines = Vec::new();
            for row in rows {
                lines.push(cells(&template.fill(&row.fields()).map_err(refused)?));
            }
            table(cells(&template.headings()).into_iter(), lines.into_iter());
        }
        Format::Json => json(&rows.iter().map(|r| &r.object).collect::<Vec<_>>()),
        Format::Template(template) => {
            for row in rows {
                line(&template.fill(&row.fields()).map_err(refused)?);
            }
        }
    }
    Ok(())
}

/// Prints a listing whose cells are sentences: on a terminal they are broken into lines that fit it.
///
/// # Errors
/// A template that names a field there is not.
pub fn list_wrapped(format: &Format, headers: &[&str], rows: &[Row]) -> Result<(), Failure> {
    match (format, terminal::size()) {
        (Format::Table, Some(size)) => {
            let cells = rows.iter().map(|row| row.cells.clone());
            lines_of(headings(headers), cells, Some(size.columns)).iter().for_each(|l| line(l));
            Ok(())
        }
        _ => list(format, headers, rows),
    }
}

/// Prints what was inspected: an array, or one line of the template for each.
///
/// # Errors
/// A template that names a field there is not.
pub fn inspected<T: Serialize>(format: Option<&Format>, objects: &[T]) -> Result<(), Failure> {
    match format {
        Some(Format::Template(template)) => {
            for object in objects {
                let value = serde_json::to_value(object).unwrap_or_default();
                line(&template.fill(&value).map_err(refused)?);
            }
        }
        _ => json(&objects),
    }
    Ok(())
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

fn table(headers: impl Iterator<Item = String>, rows: impl Iterator<Item = Vec<String>>) {
    table_lines(headers, rows).iter().for_each(|text| line(text));
}

fn headings(headers: &[&str]) -> impl Iterator<Item = String> {
    headers.iter().map(|header| (*header).to_owned())
}

/// The lines of a table, the heading first.
pub fn table_lines(
    headers: impl Iterator<Item = String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> Vec<String> {
    lines_of(headers, rows, None)
}

/// As above, no line longer than `width` where there is one.
fn lines_of(
    headers: impl Iterator<Item = String>,
    rows: impl Iterator<Item = Vec<String>>,
    width: Option<usize>,
) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    table.set_header(headers.map(|header| clean(&header)).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let shown = |(i, text): (usize, String)| {
        let text = text.trim_end();
        if i == 0 { bold(text) } else { text.to_owned() }
    };
    table.lines().enumerate().map(shown).collect()
}

/// Prints one object as indented JSON.
pub fn json<T: Serialize>(object: &T) {
    line(&escaped(&serde_json::to_string_pretty(object).unwrap_or_default()));
}

/// Prints one object as JSON on one line.
pub fn json_line<T: Serialize>(object: &T) {
    line(&escaped(&serde_json::to_string(object).unwrap_or_default()));
}

/// JSON in which the control characters are escaped that JSON lets stand: DEL and those that terminals obey beyond ASCII. They
/// occur in strings alone.
pub fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            other => text.push(other),
        }
    }
    text
}

/// Prints one line. A reader that has gone ends the program quietly, by the signal that `main` restored.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Tells the user something besides the result: one line on stderr.
pub fn note(text: &str) {
    eprintln!("portolan: {}", clean(text));
}

/// A failure as this program's own.
pub fn refused(message: impl Into<String>) -> Failure {
    Failure { message: message.into(), code: 1 }
}

/// Text without control characters.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Text as a heading: bold on a terminal that wants it (<https://no-color.org>).
pub fn bold(text: &str) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    if wanted && std::io::stdout().is_terminal() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The first twelve digits of an id, or all of it.
pub fn short(id: &str, whole: bool) -> String {
    if whole { id.to_owned() } else { id.chars().take(12).collect() }
}

/// Text cut to `width` characters, its end marked.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_takes_dockers_words_and_refuses_others() {
        assert_eq!("table".parse(), Ok(Format::Table));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!(matches!("{{.Name}}".parse(), Ok(Format::Template(_))));
        assert!(matches!("table {{.Name}}\\t{{.ID}}".parse(), Ok(Format::Columns(_))));
        assert!("yaml".parse::<Format>().is_err());
        assert!("{{.Name".parse::<Format>().is_err());
    }

    #[test]
    fn cells_are_broken_into_lines_that_fit() {
        let cells = ["kernel".to_owned(), "a sentence that is longer than the line".into()];
        let rows = || std::iter::once(cells.to_vec());
        let whole = lines_of(headings(&["CHECK", "FINDING"]), rows(), None);
        assert_eq!(whole.len(), 2);
        let fitted = lines_of(headings(&["CHECK", "FINDING"]), rows(), Some(30));
        assert!(fitted.iter().all(|line| line.chars().count() <= 30), "{fitted:?}");
        let words = |lines: &[String]| lines.concat().replace(' ', "");
        assert_eq!(words(&fitted), words(&whole));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = "a\u{9b}31m\u{7f}\u{1b}é";
        let json = escaped(&serde_json::to_string(text).unwrap());
        assert_eq!(json, r#""a\u009b31m\u007f\u001bé""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(clean("a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(short("0123456789abcdef", false), "0123456789ab");
    }
}
