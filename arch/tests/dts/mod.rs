//! A device tree blob as source text (Devicetree Specification 0.4, 5 and 6),
//! whose form does not depend on the version of a tool.

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;

/// Properties whose cells are phandles, which dtc wants as references.
const REFERENCES: [&str; 4] = ["clocks", "cpu", "interrupt-parent", "next-level-cache"];

/// The text of `blob`. Panics where it is malformed.
pub(crate) fn text(blob: &[u8]) -> String {
    let mut lines = vec!["/dts-v1/;".to_owned(), String::new()];
    let mut open = Vec::new();
    let strings = usize_at(blob, 12);
    let mut at = usize_at(blob, 8);
    while let token @ (BEGIN_NODE | END_NODE | PROP) = u32_at(blob, at) {
        at += 4;
        let depth = open.len();
        match token {
            BEGIN_NODE => {
                let name = string_at(blob, at);
                at = (at + name.len() + 1).next_multiple_of(4);
                let name = if name.is_empty() { "/" } else { name };
                open.push(lines.len());
                lines.push(indented(depth, &format!("{name} {{")));
            }
            END_NODE => {
                open.pop();
                lines.push(indented(depth - 1, "};"));
            }
            _ => {
                let length = usize_at(blob, at);
                let name = string_at(blob, strings + usize_at(blob, at + 4));
                let value = &blob[at + 8..at + 8 + length];
                at = (at + 8 + length).next_multiple_of(4);
                lines.push(indented(depth, &property(name, value)));
                if name == "phandle" {
                    let node = &mut lines[*open.last().unwrap()];
                    let label = format!("p{:x}: {}", u32_at(value, 0), node.trim_start());
                    *node = indented(depth - 1, &label);
                }
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn indented(depth: usize, content: &str) -> String {
    format!("{:width$}{content}", "", width = depth * 2)
}

/// Strings where the value can be that, else cells, else bytes.
fn property(name: &str, value: &[u8]) -> String {
    let printable = |byte: &u8| *byte == 0 || byte.is_ascii_graphic() || *byte == b' ';
    let texts = value.ends_with(b"\0")
        && value.iter().all(printable)
        && !value.starts_with(b"\0")
        && !value.windows(2).any(|pair| pair == b"\0\0");
    let list = match value {
        [] => return format!("{name};"),
        _ if texts => {
            let texts = String::from_utf8(value[..value.len() - 1].to_vec()).unwrap();
            format!("\"{}\"", texts.replace('\0', "\", \""))
        }
        _ if value.len().is_multiple_of(4) => {
            let cell = |n| match u32_at(value, n * 4) {
                phandle if REFERENCES.contains(&name) || name == "msi-map" && n % 4 == 1 => {
                    format!("&p{phandle:x}")
                }
                cell => format!("{cell:#x}"),
            };
            let cells: Vec<_> = (0..value.len() / 4).map(cell).collect();
            format!("<{}>", cells.join(" "))
        }
        _ => format!("[{}]", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    };
    format!("{name} = {list};")
}

fn u32_at(blob: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(blob[at..at + 4].try_into().unwrap())
}

fn usize_at(blob: &[u8], at: usize) -> usize {
    u32_at(blob, at).try_into().unwrap()
}

fn string_at(blob: &[u8], at: usize) -> &str {
    let end = blob[at..].iter().position(|byte| *byte == 0).unwrap();
    std::str::from_utf8(&blob[at..at + end]).unwrap()
}
