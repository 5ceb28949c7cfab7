//! The part of Go's templates that scripts for Docker use: `--format '{{.Name}}'`.
//!
//! Text with actions in double braces. An action is a field (`.IPAM.Config`), a call (`json`, `index`, `len`, `join`,
//! `lower`, `upper`), a pipe of these, a `range` (with or without `$key, $value :=`) or an `if`, the last two up to `end`.
//! The template is read once into a tree, so that a mistake is found before the daemon is asked.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::output::{clean, escaped};

/// How deep brackets and blocks may nest.
const DEPTH_MAX: usize = 32;

/// A template that has been read.
#[derive(Clone, PartialEq, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Debug)]
enum Part {
    Text(String),
    Show(Pipe),
    Range { variables: Vec<String>, over: Pipe, each: Vec<Part>, otherwise: Vec<Part> },
    If { test: Pipe, then: Vec<Part>, otherwise: Vec<Part> },
}

/// Calls from left to right, each given the value of the one before as its last argument.
type Pipe = Vec<Vec<Term>>;

#[derive(Clone, PartialEq, Debug)]
enum Term {
    /// `.A.B`, or `.` alone.
    Field(Vec<String>),
    /// `$name.A.B`.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `(...)`, with the fields that follow it.
    Nested(Pipe, Vec<String>),
}

/// What `range` has named, innermost last.
type Scope = Vec<(String, Value)>;

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut parser = Parser { pieces: split(&unescape(text))?, at: 0 };
        let (parts, stop) = parser.block(0)?;
        match stop {
            None => Ok(Template { parts }),
            Some(word) => Err(format!("{{{{{word}}}}} without a range or an if before it")),
        }
    }
}

impl Template {
    /// The template filled with `value`.
    ///
    /// # Errors
    /// A field that `value` has not, or a function that has no meaning for what it was given.
    pub fn fill(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        fill(&self.parts, value, &mut vec![(String::new(), value.clone())], &mut out)?;
        Ok(out)
    }

    /// The fields shown at the top level, as a table's header names them.
    pub fn headings(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Show(pipe) => {
                    let field = pipe.iter().flatten().find_map(|term| match term {
                        Term::Field(path) => path.last(),
                        _ => None,
                    });
                    out.push_str(&field.map(|f| f.to_uppercase()).unwrap_or_default());
                }
                Part::Range { .. } | Part::If { .. } => {}
            }
        }
        out
    }
}

/// A piece of the source: text as it stands, or what lies between braces.
enum Piece {
    Text(String),
    Action(String),
}

/// `\t` and `\n` as people write them within the shell's single quotes.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, tail) = after.split_once("}}").ok_or("{{ without }} in the template")?;
        let (action, trim_before) = match action.strip_prefix("- ") {
            Some(inner) => (inner, true),
            None => (action, false),
        };
        let (action, trim_after) = match action.strip_suffix(" -") {
            Some(inner) => (inner, true),
            None => (action, false),
        };
        let mut before = if trim_next { before.trim_start() } else { before };
        if trim_before {
            before = before.trim_end();
        }
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Action(action.trim().to_owned()));
        trim_next = trim_after;
        rest = tail;
    }
    pieces.push(Piece::Text(if trim_next { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
}

impl Parser {
    /// Reads up to the end of the source, or up to an `else` or `end`, which it names.
    fn block(&mut self, depth: usize) -> Result<(Vec<Part>, Option<String>), String> {
        if depth > DEPTH_MAX {
            return Err(format!("a template nests at most {DEPTH_MAX} deep"));
        }
        let mut parts = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            let action = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        parts.push(Part::Text(text.clone()));
                    }
                    continue;
                }
                Piece::Action(action) => action.clone(),
            };
            let (word, rest) = action.split_once(' ').unwrap_or((action.as_str(), ""));
            match word {
                "end" | "else" => return Ok((parts, Some(word.to_owned()))),
                "range" => {
                    let (variables, over) = range_head(rest)?;
                    let (each, otherwise) = self.branches(depth)?;
                    parts.push(Part::Range { variables, over, each, otherwise });
                }
                "if" => {
                    let test = pipe(rest)?;
                    let (then, otherwise) = self.branches(depth)?;
                    parts.push(Part::If { test, then, otherwise });
                }
                _ => parts.push(Part::Show(pipe(&action)?)),
            }
        }
        Ok((parts, None))
    }

    /// The body of a `range` or an `if`, and of its `else`.
    fn branches(&mut self, depth: usize) -> Result<(Vec<Part>, Vec<Part>), String> {
        let missing = || "a range or an if without {{end}}".to_owned();
        let (body, stop) = self.block(depth + 1)?;
        if stop.ok_or_else(missing)? == "end" {
            return Ok((body, Vec::new()));
        }
        let (otherwise, stop) = self.block(depth + 1)?;
        match stop.ok_or_else(missing)?.as_str() {
            "end" => Ok((body, otherwise)),
            _ => Err("a second {{else}}".into()),
        }
    }
}

/// `$k, $v := .Field` or `.Field`.
fn range_head(text: &str) -> Result<(Vec<String>, Pipe), String> {
    let Some((names, over)) = text.split_once(":=") else { return Ok((Vec::new(), pipe(text)?)) };
    let names: Vec<String> =
        names.split(',').map(|n| n.trim().trim_start_matches('$').to_owned()).collect();
    if names.len() > 2 || names.iter().any(String::is_empty) {
        return Err("range takes one or two variables: {{range $key, $value := .Field}}".into());
    }
    Ok((names, pipe(over)?))
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let tokens = tokens(text)?;
    let mut at = 0;
    let pipe = pipe_of(&tokens, &mut at, 0)?;
    if at < tokens.len() { Err(format!(") without ( in {text:?}")) } else { Ok(pipe) }
}

#[derive(PartialEq)]
enum Token {
    Open,
    Close,
    Bar,
    Quoted(String),
    Word(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '|' => tokens.push(Token::Bar),
            '"' | '`' => {
                let mut quoted = String::new();
                loop {
                    match chars.next() {
                        None => return Err(format!("a quote that does not end in {text:?}")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => quoted.extend(chars.next()),
                        Some(inner) => quoted.push(inner),
                    }
                }
                tokens.push(Token::Quoted(quoted));
            }
            c => {
                let mut word = c.to_string();
                while let Some(next) =
                    chars.next_if(|n| !n.is_whitespace() && !"()|\"`".contains(*n))
                {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

fn pipe_of(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Pipe, String> {
    if depth > DEPTH_MAX {
        return Err(format!("a template nests at most {DEPTH_MAX} deep"));
    }
    let mut pipe = vec![Vec::new()];
    while let Some(token) = tokens.get(*at) {
        let term = match token {
            Token::Close if depth > 0 => break,
            Token::Close => return Err(") without (".into()),
            Token::Bar => {
                *at += 1;
                pipe.push(Vec::new());
                continue;
            }
            Token::Open => {
                *at += 1;
                let inner = pipe_of(tokens, at, depth + 1)?;
                if tokens.get(*at) != Some(&Token::Close) {
                    return Err("( without )".into());
                }
                let fields = match tokens.get(*at + 1) {
                    Some(Token::Word(word)) if word.starts_with('.') && word.len() > 1 => {
                        *at += 1;
                        path(word)
                    }
                    _ => Vec::new(),
                };
                Term::Nested(inner, fields)
            }
            Token::Quoted(text) => Term::Literal(Value::String(text.clone())),
            Token::Word(word) => term_of(word)?,
        };
        *at += 1;
        pipe.last_mut().into_iter().for_each(|call| call.push(term.clone()));
    }
    if pipe.iter().any(Vec::is_empty) {
        return Err("an empty action; write {{.}} for all of it".into());
    }
    Ok(pipe)
}

fn path(word: &str) -> Vec<String> {
    word.split('.').filter(|f| !f.is_empty()).map(str::to_owned).collect()
}

fn term_of(word: &str) -> Result<Term, String> {
    if let Some(variable) = word.strip_prefix('$') {
        let (name, fields) = variable.split_once('.').unwrap_or((variable, ""));
        return Ok(Term::Variable(name.to_owned(), path(fields)));
    }
    if word.starts_with('.') {
        return Ok(Term::Field(path(word)));
    }
    if let Ok(number) = word.parse::<i64>() {
        return Ok(Term::Literal(Value::from(number)));
    }
    match word {
        "true" => Ok(Term::Literal(Value::Bool(true))),
        "false" => Ok(Term::Literal(Value::Bool(false))),
        "json" | "index" | "len" | "join" | "lower" | "upper" | "println" => {
            Ok(Term::Function(word.to_owned()))
        }
        _ => Err(format!(
            "{word:?} means nothing in a template: use .Field, json, index, len, join, lower, upper, range or if"
        )),
    }
}

fn fill(parts: &[Part], dot: &Value, scope: &mut Scope, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Show(pipe) => match value_of(pipe, dot, scope)? {
                Value::String(text) if is_finished(pipe) => out.push_str(&text),
                value => out.push_str(&Shown(&value).to_string()),
            },
            Part::If { test, then, otherwise } => {
                let branch = if is_true(&value_of(test, dot, scope)?) { then } else { otherwise };
                fill(branch, dot, scope, out)?;
            }
            Part::Range { variables, over, each, otherwise } => {
                let items = items(value_of(over, dot, scope)?)?;
                if items.is_empty() {
                    fill(otherwise, dot, scope, out)?;
                }
                for (key, item) in items {
                    let outer = scope.len();
                    match variables.as_slice() {
                        [value] => scope.push((value.clone(), item.clone())),
                        [name, value] => {
                            scope.extend([(name.clone(), key), (value.clone(), item.clone())]);
                        }
                        _ => {}
                    }
                    fill(each, &item, scope, out)?;
                    scope.truncate(outer);
                }
            }
        }
    }
    Ok(())
}

/// Whether a pipe ends in the template's own text, or in a function that has cleaned what it was given: control characters in
/// it are meant to be there.
fn is_finished(pipe: &Pipe) -> bool {
    match pipe.last().and_then(|call| call.first()) {
        Some(Term::Literal(_)) => true,
        Some(Term::Function(name)) => ["join", "println"].contains(&name.as_str()),
        _ => false,
    }
}

fn items(value: Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::Array(list) => {
            Ok(list.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect())
        }
        Value::Object(map) => Ok(map.into_iter().map(|(k, v)| (Value::String(k), v)).collect()),
        Value::Null => Ok(Vec::new()),
        other => Err(format!("range needs a list, not {}", Shown(&other))),
    }
}

fn value_of(pipe: &Pipe, dot: &Value, scope: &Scope) -> Result<Value, String> {
    let mut carried = None;
    for call in pipe {
        carried = Some(call_of(call, carried, dot, scope)?);
    }
    Ok(carried.unwrap_or_default())
}

fn call_of(
    call: &[Term],
    carried: Option<Value>,
    dot: &Value,
    scope: &Scope,
) -> Result<Value, String> {
    let (Some(Term::Function(name)), rest) = (call.first(), call.get(1..).unwrap_or(&[])) else {
        return match call {
            [term] if carried.is_none() => term_value(term, dot, scope),
            _ => Err("only a function takes arguments".into()),
        };
    };
    let mut arguments = Vec::new();
    for term in rest {
        arguments.push(term_value(term, dot, scope)?);
    }
    arguments.extend(carried);
    apply(name, &arguments)
}

fn term_value(term: &Term, dot: &Value, scope: &Scope) -> Result<Value, String> {
    match term {
        Term::Literal(value) => Ok(value.clone()),
        Term::Field(path) => descend(dot, path),
        Term::Variable(name, path) => {
            let found = scope.iter().rev().find(|(known, _)| known == name);
            descend(&found.ok_or_else(|| format!("no variable ${name}"))?.1, path)
        }
        Term::Nested(pipe, path) => descend(&value_of(pipe, dot, scope)?, path),
        Term::Function(name) => apply(name, &[]),
    }
}

/// Exact names first; then in any case, since Docker writes `ID` in some places and `Id` in others.
fn descend(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut here = value;
    for field in path {
        let Value::Object(map) = here else {
            return Err(format!("no field .{field} in {}", Shown(here)));
        };
        let found = map
            .get(field)
            .or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(field)).map(|(_, v)| v));
        here = found.ok_or_else(|| {
            let known: Vec<String> = map.keys().map(|k| format!(".{k}")).collect();
            format!("no field .{field}; there is {}", known.join(" "))
        })?;
    }
    Ok(here.clone())
}

fn apply(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("json", [value]) => Ok(Value::String(escaped(&value.to_string()))),
        ("println", [value]) => Ok(Value::String(format!("{}\n", Shown(value)))),
        ("lower", [Value::String(text)]) => Ok(Value::String(text.to_lowercase())),
        ("upper", [Value::String(text)]) => Ok(Value::String(text.to_uppercase())),
        ("len", [Value::Array(list)]) => Ok(Value::from(list.len())),
        ("len", [Value::Object(map)]) => Ok(Value::from(map.len())),
        ("len", [Value::String(text)]) => Ok(Value::from(text.len())),
        ("join", [Value::Array(list), Value::String(between)]) => {
            let words: Vec<String> = list.iter().map(|v| Shown(v).to_string()).collect();
            Ok(Value::String(words.join(between)))
        }
        ("index", [value, keys @ ..]) if !keys.is_empty() => {
            let mut here = value;
            for key in keys {
                let found = match (here, key) {
                    (Value::Object(map), Value::String(name)) => map.get(name),
                    (Value::Array(list), Value::Number(_)) => {
                        key.as_u64().and_then(|i| list.get(usize::try_from(i).ok()?))
                    }
                    _ => None,
                };
                here = found.ok_or_else(|| format!("index: there is no {}", Shown(key)))?;
            }
            Ok(here.clone())
        }
        _ => Err(format!("{name} cannot be used with what it was given")),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go's templates print it, without control characters.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<no value>"),
            Value::String(text) => f.write_str(&clean(text)),
            Value::Array(list) => {
                f.write_str("[")?;
                for (i, item) in list.iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { " " } else { "" }, Shown(item))?;
                }
                f.write_str("]")
            }
            Value::Object(map) => {
                f.write_str("map[")?;
                for (i, (key, item)) in map.iter().enumerate() {
                    let gap = if i > 0 { " " } else { "" };
                    write!(f, "{gap}{}:{}", clean(key), Shown(item))?;
                }
                f.write_str("]")
            }
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, value: &Value) -> String {
        template.parse::<Template>().unwrap().fill(value).unwrap()
    }

    #[test]
    fn control_characters_are_the_templates_own_or_none() {
        let value = json!({"Name": "a\u{1b}[31m\nb\u{9b}c", "Words": ["x\ty", "z\u{7f}"], "Map": {"k\r": "v\u{7}"}});
        assert_eq!(filled("{{.Name}}\\t{{.Map}}", &value), "a [31m b c\tmap[k :v ]");
        assert_eq!(filled("{{lower .Name}}{{\"\\n\"}}{{.Words}}", &value), "a [31m b c\n[x y z ]");
        assert_eq!(
            filled("{{join .Words \"\\n\"}}{{println .Name}}", &value),
            "x y\nz a [31m b c\n"
        );
        assert_eq!(filled("{{range $k, $v := .Map}}{{$k}}={{$v}}{{end}}", &value), "k =v ");
        let json = filled("{{json .Name}}", &value);
        assert_eq!(json, r#""a\u001b[31m\nb\u009bc""#);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value["Name"]);
    }

    fn network() -> Value {
        json!({
            "Name": "app", "Id": "0123", "Internal": false,
            "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]},
            "Containers": {"aa": {"Name": "db"}, "bb": {"Name": "web"}},
            "Aliases": ["a", "b"],
        })
    }

    #[test]
    fn fields_and_nested_fields_are_shown_as_go_shows_them() {
        assert_eq!(filled("{{.Name}}\\t{{ .Internal }}", &network()), "app\tfalse");
        assert_eq!(filled("{{.ID}} {{.Aliases}}", &network()), "0123 [a b]");
        assert_eq!(
            filled("{{.IPAM.Config}}", &network()),
            "[map[Gateway:172.18.0.1 Subnet:172.18.0.0/16]]"
        );
        assert_eq!(
            filled("{{json .Aliases}} {{.Aliases | json}}", &network()),
            "[\"a\",\"b\"] [\"a\",\"b\"]"
        );
    }

    #[test]
    fn the_ways_to_a_subnet_that_scripts_use_all_work() {
        let subnet = "172.18.0.0/16";
        assert_eq!(filled("{{range .IPAM.Config}}{{.Subnet}}{{end}}", &network()), subnet);
        assert_eq!(filled("{{(index .IPAM.Config 0).Subnet}}", &network()), subnet);
        assert_eq!(
            filled("{{range $k, $v := .Containers}}{{$k}}={{$v.Name}} {{end}}", &network()),
            "aa=db bb=web "
        );
        assert_eq!(filled("{{if .Internal}}in{{else}}out{{end}}", &network()), "out");
        assert_eq!(filled("a {{- \"b\" -}} c", &network()), "abc");
        assert_eq!(filled("{{join .Aliases \", \"}} {{len .Containers}}", &network()), "a, b 2");
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_known_ones() {
        let template: Template = "{{.Nmae}}".parse().unwrap();
        let error = template.fill(&json!({"Name": "app", "Scope": "local"})).unwrap_err();
        assert_eq!(error, "no field .Nmae; there is .Name .Scope");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let deep = format!("{{{{{}.{}}}}}", "(".repeat(100), ")".repeat(100));
        for bad in [
            "{{.Name",
            "{{}}",
            "{{foo .Name}}",
            "{{end}}",
            "{{range .A}}",
            "{{(.A}}",
            "{{.A)}}",
            "{{\"a}}",
            &deep,
        ] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
