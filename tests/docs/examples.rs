//! The Lua examples of a page of documentation.

/// How an example runs.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// The body of a test.
    Body,
    /// A test file.
    File,
    /// A test file whose run must fail and say this.
    FailingFile(String),
    /// No test, but a file of this name that others use.
    Named(String),
}

/// One block of code.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    /// How it runs.
    pub kind: Kind,
    /// The first of its lines in the page that may be written over, from 1: the fence, or the comment before it.
    pub first: usize,
    /// The last one: the closing fence, or the end of the comment behind it.
    pub last: usize,
    /// Its lines with their numbers.
    pub code: Vec<(usize, String)>,
    /// What the error contains that it must raise.
    pub raises: Option<String>,
    /// Whether it has a machine of its own.
    pub own_vm: bool,
}

/// What the comments before a block say.
#[derive(Default)]
struct Comments {
    first: Option<usize>,
    before: Vec<(usize, String)>,
    raises: Option<String>,
    fails: Option<String>,
    file: Option<String>,
    own_vm: bool,
}

/// The examples of a page, in order.
///
/// # Errors
/// A comment or a fence that isn't closed, or a comment without a block.
pub fn examples(text: &str) -> Result<Vec<Example>, String> {
    let mut found: Vec<Example> = Vec::new();
    let mut comments = Comments::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if line == "<!-- before" || line == "<!-- after" {
            let inside = until(&mut lines, "-->", number)?;
            if line == "<!-- before" {
                comments.first.get_or_insert(number);
                comments.before.extend(inside.0);
            } else {
                let last = found.last_mut().ok_or(format!("line {number}: nothing stands before"))?;
                last.code.extend(inside.0);
                last.last = inside.1;
            }
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            comments.first.get_or_insert(number);
            match comment.split_once(": ") {
                Some(("raises", text)) => comments.raises = Some(text.to_owned()),
                Some(("fails", text)) => comments.fails = Some(text.to_owned()),
                Some(("file", name)) => comments.file = Some(name.to_owned()),
                None if comment == "own vm" => comments.own_vm = true,
                _ => return Err(format!("line {number}: unknown comment `{comment}`")),
            }
        } else if line == "```lua" {
            let (code, last) = until(&mut lines, "```", number)?;
            found.push(finish(std::mem::take(&mut comments), number, code, last));
        } else if line.starts_with("```") {
            until(&mut lines, "```", number)?;
        } else if !line.is_empty() && comments.first.is_some() {
            return Err(format!("line {number}: a comment stands before no block of Lua"));
        }
    }
    Ok(found)
}

fn finish(comments: Comments, fence: usize, code: Vec<(usize, String)>, last: usize) -> Example {
    let registers = code.iter().any(|(_, line)| line.starts_with("test(") || line.starts_with("todo("));
    let kind = match (comments.file, comments.fails) {
        (Some(name), _) => Kind::Named(name),
        (None, Some(text)) => Kind::FailingFile(text),
        (None, None) if registers => Kind::File,
        (None, None) => Kind::Body,
    };
    Example {
        kind,
        first: comments.first.unwrap_or(fence),
        last,
        code: [comments.before, code].concat(),
        raises: comments.raises,
        own_vm: comments.own_vm,
    }
}

type Numbered = Vec<(usize, String)>;

/// The lines before one that is `end`, and its number.
fn until<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    end: &str,
    from: usize,
) -> Result<(Numbered, usize), String> {
    let mut inside = Vec::new();
    for (number, line) in lines {
        if line == end {
            return Ok((inside, number));
        }
        inside.push((number, line.to_owned()));
    }
    Err(format!("line {from}: no `{end}` follows"))
}

#[test]
fn the_examples_of_a_page() {
    let page = "# T\n\n```lua\nlocal x = 1\n```\n\n<!-- raises: no such -->\n<!-- before\nlocal y\n-->\n```lua\nf()\n```\n<!-- after\ng()\n-->\n\n\
                ```toml\n[lua]\n```\n<!-- fails: two -->\n```lua\ntest(1)\n```\n```lua\ntodo()\n```\n<!-- file: x/y.lua -->\n```lua\nreturn 1\n```\n";
    let found = examples(page).unwrap();
    let kinds: Vec<&Kind> = found.iter().map(|example| &example.kind).collect();
    assert_eq!(
        kinds,
        [
            &Kind::Body,
            &Kind::Body,
            &Kind::FailingFile("two".to_owned()),
            &Kind::File,
            &Kind::Named("x/y.lua".to_owned())
        ]
    );
    assert_eq!((found[0].first, found[0].last, found[0].code.clone()), (3, 5, vec![(4, "local x = 1".to_owned())]));
    assert_eq!((found[1].first, found[1].last, found[1].raises.as_deref()), (7, 16, Some("no such")));
    assert_eq!(found[1].code.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [9, 12, 15]);
    assert!(examples("```lua\n").is_err() && examples("<!-- raises: x -->\ntext\n").is_err());
}
