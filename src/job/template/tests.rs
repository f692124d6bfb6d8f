use super::*;
use crate::job::param::Value;
use crate::job::window;
use proptest::prelude::*;

fn render(text: &str, country: &str, windowed: bool) -> Result<String> {
    let zone = window::zone("Europe/Oslo")?;
    let values: Bindings = [
        ("country".to_owned(), Value::String(country.to_owned())),
        ("part".to_owned(), Value::Int64(7)),
    ]
    .into();
    let window = Window {
        start: "2026-11-18T23:00:00Z".parse().unwrap(),
        end: "2026-11-19T23:00:00Z".parse().unwrap(),
    };
    Template::parse(text, &["country", "part"])?.render(&Context {
        export: "daily-orders",
        run: "01932f6e-0000-7000-8000-0000000000aa".parse().unwrap(),
        window: windowed.then_some(window),
        zone: &zone,
        values: &values,
    })
}

#[test]
fn times_are_of_the_exports_zone() {
    for (text, expected) in [
        ("orders", "orders"),
        ("orders/day={window_start:%Y-%m-%d}/{country}", "orders/day=2026-11-19/SE"),
        ("{window_start:%Y/%m/%d}", "2026/11/19"),
        ("{window_end}", "2026-11-20T000000+0100"),
        ("{export}/{run}", "daily-orders/01932f6e-0000-7000-8000-0000000000aa"),
        ("ORDERS_{window_start:%Y%m%d}-{part}.csv.gz", "ORDERS_20261119-7.csv.gz"),
    ] {
        assert_eq!(render(text, "SE", true).unwrap(), expected);
    }
}

#[test]
fn values_stay_in_their_place() {
    for (value, expected) in [
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("a\\b\n", "a%5Cb%0A"),
        ("_manifest.json", "%5Fmanifest.json"),
        ("%2E", "%252E"),
        ("Ål", "%C3%85l"),
        ("_Manifest.json", "%5FManifest.json"),
        ("a-b", "a-b"),
    ] {
        assert_eq!(render("{country}", value, true).unwrap(), expected);
    }
    let error = render("a/{country}/b", "", true).unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("the value of `country` is empty"), "{error}");
    assert!(render("_{country}", "manifest.json", true).is_err());
    let long = |template: &str, length: usize| {
        render(template, &"x".repeat(length), true).map_err(|error| error.to_string())
    };
    assert!(long("a/{country}", 255).is_ok());
    assert!(long("a/{country}", 256).unwrap_err().contains("has 256 bytes; at most 255"));
    let deep = "{country}/{country}/{country}/{country}/{country}";
    assert!(long(deep, 255).unwrap_err().contains("has 1279 bytes; at most 1024"));
    assert_eq!(render("{country}-{part}", "no-se", true).unwrap(), "no%2Dse-7");
}

#[test]
fn a_run_without_window_has_no_window_in_its_path() {
    let error = render("{window_start}", "SE", false).unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("the run has none"));
    assert_eq!(render("all/{country}", "SE", false).unwrap(), "all/SE");
}

#[test]
fn mistakes_are_found_before_any_run() {
    for (text, words) in [
        ("", "is empty"),
        ("/orders", "begins with `/`"),
        ("orders/", "is empty"),
        ("a//b", "is empty"),
        ("a/../b", "no names"),
        ("a\\b", "backslash"),
        ("a/_manifest.json", "Longshore's own"),
        ("{contry}", "no placeholder here"),
        ("{}", "no placeholder here"),
        ("{country:%Y}", "takes no format"),
        ("{window_start:%!}", "no time format"),
        ("{window_start:%n}", "control character"),
        ("{window_start:%Y", "lacks its other"),
        ("a}", "lacks its other"),
        ("{{country}}", "lacks its other"),
        ("{country}{country}", "nothing tells where `{country}` ends"),
    ] {
        let error = Template::parse(text, &["country"]).unwrap_err();
        assert_eq!(error.class(), Class::Config, "{text}");
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
    let error = Template::parse("{contry}", &["country"]).unwrap_err();
    assert_eq!(
        error.advice(),
        Some("Known are: {window_start}, {window_end}, {run}, {export}, {country}.")
    );
}

#[test]
fn it_tells_what_it_uses() {
    let template = Template::parse("{export}/{window_start:%Y}/{part}", &["part"]).unwrap();
    assert!(template.placeholders().eq(["export", "window_start", "part"]));
}

/// Values as they come, and as nobody would give them but to do harm.
fn values() -> impl Strategy<Value = String> {
    let odd = ["..", ".", "_manifest.json", "_MANIFEST", "%2E", "%", "a/../b", "\u{0}", "-", "é"];
    prop_oneof![
        any::<String>(),
        "[-_.~%/=xyA02]{0,8}",
        prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        (250_usize..2000).prop_map(|length| "x".repeat(length)),
    ]
}

proptest! {
    /// Whatever the values are, the path is one below its folder, and tells them.
    #[test]
    fn no_value_leaves_its_place_or_takes_that_of_others(
        text in prop::sample::select(vec![
            "a/{x}/{y}", "{x}-{y}", "p={x}.{y}_z", "{x}xy{y}", "{x}=-{y}/b", "{x}~~{y}.csv",
            "{x}/{window_start:%F}-{y}", "in_{x}_{window_start:%Y%m%d}-{y}", "{x}/_{y}/{run}",
            "{x}_{window_start:%A}={y}",
        ]),
        one in (values(), values()),
        two in (values(), values()),
    ) {
        let template = Template::parse(text, &["x", "y"]).unwrap();
        let zone = window::zone("Europe/Oslo").unwrap();
        let at = |text: &str| text.parse().unwrap();
        let (start, end) = (at("2026-11-18T23:00:00Z"), at("2026-11-19T23:00:00Z"));
        let render = |(x, y): &(String, String)| {
            let named = [("x", x), ("y", y)];
            let values: Bindings = named
                .map(|(name, value)| (name.to_owned(), Value::String(value.clone())))
                .into();
            template.render(&Context {
                export: "orders",
                run: RunId(uuid::Uuid::nil()),
                window: Some(Window { start, end }),
                zone: &zone,
                values: &values,
            })
        };
        match render(&one) {
            Ok(path) => {
                let segments: Vec<_> = path.split('/').collect();
                prop_assert_eq!(segments.len(), text.split('/').count());
                for segment in segments {
                    prop_assert!(!segment.is_empty() && !segment.starts_with('.'));
                    prop_assert!(!segment.to_ascii_lowercase().starts_with("_manifest"));
                    prop_assert!(segment.len() <= 255);
                }
                prop_assert!(path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic()));
                if one != two {
                    prop_assert_ne!(render(&two).ok(), Some(path));
                }
            }
            Err(error) => {
                // Encoded each byte may become three.
                let long = one.0.len() + one.1.len() > 70;
                let own = text.contains("_{y}") && one.1.to_ascii_lowercase().starts_with("manifest");
                let empty = one.0.is_empty() || one.1.is_empty();
                prop_assert!(empty || own || long, "{error}");
                if empty {
                    prop_assert!(error.to_string().contains("is empty"), "{error}");
                }
            }
        }
    }
}
