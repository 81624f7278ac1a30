//! Labels as the text exposition format writes them.

/// Writes `name="value",...`.
pub(super) fn write_labels<'a>(
    text: &mut String,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) {
    for (at, (name, value)) in labels.enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
}
