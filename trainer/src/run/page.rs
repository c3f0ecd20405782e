//! [`fill`]: an HTML page as one file that needs no network. A page has its own template with style and script, the
//! parts that all pages share (`head.css`, and `draw.js` with common functions), and its data as JSON.
//!
//! ```text
//! {{head}} = document head + head.css, with {{refresh}}     {{draw}} = draw.js     {{data}} = JSON, in an inert script
//! ```

use serde_json::Value;

const HEAD: &str = concat!(
    r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{{refresh}}<style>
"#,
    include_str!("page/head.css"),
    "</style>\n"
);
const DRAW: &str = include_str!("page/draw.js");

/// The page of `template` with `data`. With `refresh`, it reloads after that many seconds.
pub(crate) fn fill(template: &str, data: &Value, refresh: Option<u64>) -> String {
    let again = |seconds| format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">\n");
    let refresh = refresh.map_or(String::new(), again);
    // Inside a script element only `<` can end it. The data are inserted last, so that a placeholder's name in them
    // stays text.
    let data = data.to_string().replace('<', "\\u003c");
    let places = [("{{head}}", HEAD), ("{{refresh}}", &refresh), ("{{draw}}", DRAW), ("{{data}}", &data)];
    places.into_iter().fold(template.to_string(), |page, (place, text)| page.replacen(place, text, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_data_end_no_script() {
        let page =
            fill("{{head}}<script>{{data}}</script>{{draw}}", &Value::from("</script>{{draw}}{{head}}"), Some(7));
        assert!(page.starts_with("<!doctype html>") && page.contains("content=\"7\""), "{page}");
        assert!(page.contains("\"\\u003c/script>{{draw}}{{head}}\"</script>"), "{page}");
        assert!(page.contains("function ticks("));
        assert!(!fill("{{head}}", &Value::Null, None).contains("http-equiv"));
    }
}
