//! A flame graph as an SVG without scripts: callers below callees, widths by samples, names in tooltips.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
const TOP: f64 = 30.0;
/// Narrower frames are not drawn, nor is what lies above them.
const NARROWEST: f64 = 0.3;
/// A character of the font, about.
const CHARACTER: f64 = 6.8;

#[derive(Default)]
struct Frame<'a> {
    weight: u64,
    callees: BTreeMap<&'a str, Frame<'a>>,
}

impl Frame<'_> {
    fn depth(&self, scale: f64) -> usize {
        let drawn = |f: &&Self| f.weight as f64 * scale >= NARROWEST;
        1 + self.callees.values().filter(drawn).map(|f| f.depth(scale)).max().unwrap_or(0)
    }
}

/// Draws stacks (outermost frame first) with their weights.
pub fn graph(title: &str, stacks: &BTreeMap<Vec<String>, u64>) -> String {
    let mut root = Frame::default();
    for (stack, weight) in stacks {
        root.weight += weight;
        let mut at = &mut root;
        for name in stack {
            at = at.callees.entry(name).or_default();
            at.weight += weight;
        }
    }
    let scale = WIDTH / root.weight.max(1) as f64;
    let height = TOP + root.depth(scale) as f64 * ROW + 10.0;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="white"/><text x="{}" y="18" text-anchor="middle" font-size="14">{}</text>"#,
        WIDTH / 2.0,
        escaped(title)
    );
    draw(&mut out, ("all", &root), (0.0, height - ROW - 5.0), scale, root.weight);
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, (name, frame): (&str, &Frame), (x, y): (f64, f64), scale: f64, all: u64) {
    let width = frame.weight as f64 * scale;
    if width < NARROWEST {
        return;
    }
    let share = 100.0 * frame.weight as f64 / all.max(1) as f64;
    let room = (width / CHARACTER) as usize;
    let shown: String = match name.chars().count() {
        n if n <= room => name.into(),
        _ if room < 4 => String::new(),
        _ => name.chars().take(room - 2).chain("..".chars()).collect(),
    };
    let _ = writeln!(
        out,
        r#"<g><title>{} ({} samples, {share:.2} %)</title><rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{}" fill="{}" stroke="white" stroke-width="0.4"/><text x="{:.1}" y="{:.1}">{}</text></g>"#,
        escaped(name),
        frame.weight,
        ROW - 1.0,
        colour(name),
        x + 3.0,
        y + 12.0,
        escaped(&shown)
    );
    let mut at = x;
    for (name, callee) in &frame.callees {
        draw(out, (name, callee), (at, y - ROW), scale, all);
        at += callee.weight as f64 * scale;
    }
}

/// Warm for translated code, blue for what is interpreted, grey for the host; the same name, the same shade.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(5381u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
    if name.ends_with("(interpreted)") {
        format!("hsl(210,60%,{}%)", 65 + hash % 12)
    } else if name.starts_with('(') {
        "#c8c8c8".into()
    } else {
        format!("hsl({},80%,{}%)", 15 + hash % 40, 62 + hash / 64 % 12)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_shares_and_names_are_escaped() {
        let stack = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let stacks = BTreeMap::from([
            (stack(&["p", "main", "a<b>"]), 3),
            (stack(&["p", "main"]), 1),
            (stack(&["p", "other"]), 4),
        ]);
        let svg = graph("t", &stacks);
        assert!(svg.contains(r#"<title>main (4 samples, 50.00 %)</title><rect x="0.0""#), "{svg}");
        assert!(svg.contains("a&lt;b&gt; (3 samples, 37.50 %)") && !svg.contains("a<b>"));
        assert!(svg.contains(r#"<title>other (4 samples, 50.00 %)</title><rect x="600.0""#));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }

    #[test]
    fn nothing_is_a_graph_too() {
        assert!(graph("empty", &BTreeMap::new()).ends_with("</svg>\n"));
    }
}
