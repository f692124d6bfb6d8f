//! Examples of the reference: each is read, in the place of what a small configuration has there.

const SETTINGS: &str = "longshore.toml";
const CONNECTIONS: &str = "connections.toml";
const EXPORT: &str = "exports/*.toml";

const QUEUE: &str = r#"
[queue]
url      = "sqlite:longshore.db"                # in all three: one file, for one machine
"#;
const SERVERS: &str = r#"
[queue]                                         # three servers, in the place of the file
url      = "amqps://longshore@queue.internal/%2f"
password = "${env:LONGSHORE_AMQP_PASSWORD}"
[ledger]
url      = "postgres://longshore@db.internal/longshore"
password = "${env:LONGSHORE_LEDGER_PASSWORD}"
keep     = "400d"
[claims]
url      = "rediss://cache.internal:6379/0"
password = "${env:LONGSHORE_CLAIMS_PASSWORD}"
"#;

/// The file, the section, and the example.
pub const ALL: [(&str, &str, &str); 31] = [
    (SETTINGS, "[queue]", QUEUE),
    (SETTINGS, "[ledger]", "[ledger]\nurl = \"sqlite:longshore.db\"\n"),
    (SETTINGS, "[claims]", SERVERS),
    (
        SETTINGS,
        "[worker]",
        r#"
[worker]
pools       = { default = 4, bulk = 1 }
concurrency = 16
drain       = "30s"
"#,
    ),
    (SETTINGS, "[http]", "[http]\nlisten = \"0.0.0.0:8640\"\n"),
    (
        SETTINGS,
        "[keys]",
        "[keys]\npseudonyms = \"${file:/run/secrets/pseudonyms}\"\nacme       = \"${file:/run/secrets/acme}\"\n",
    ),
    (
        SETTINGS,
        "[quarantine]",
        "[quarantine]\nconnection = \"lake\"\nkey        = \"${file:/run/secrets/quarantine}\"\nkeep       = \"30d\"\n",
    ),
    (
        SETTINGS,
        "[notify]",
        r#"
[notify]
url    = "https://hooks.internal/longshore"
secret = "${file:/run/secrets/notify}"
late   = "1h"
"#,
    ),
    (
        SETTINGS,
        "[vault]",
        "[vault]\nurl       = \"https://vault.internal:8200\"\ntoken     = \"${file:/run/secrets/vault-token}\"\nnamespace = \"data\"\nca        = \"vault-ca.pem\"\n",
    ),
    (SETTINGS, "[log]", "[log]\nformat = \"json\"\nlevel  = \"info\"\n"),
    (
        CONNECTIONS,
        "[<name>]",
        r#"
[shop]
type         = "postgres"
url          = "postgres://exporter@db.internal:5432/shop"
password     = "${file:/run/secrets/shop}"
max-runs     = 4
max-requests = "50/s"

[lake]
type       = "files"
url        = "s3://acme-lake/exports"
region     = "eu-north-1"
access-key = "${env:LAKE_KEY}"
secret-key = "${file:/run/secrets/lake}"
"#,
    ),
    (
        EXPORT,
        "top of the file",
        r#"
description = "Orders of one day"
owner       = "sales-data"
pool        = "default"
timezone    = "Europe/Oslo"
"#,
    ),
    (
        EXPORT,
        "[schedule]",
        r#"
[schedule]
cron     = "15 4 * * *"            # looks at 04:15
window   = "day"
start    = 2026-11-01
catch-up = "latest"

[sink]
connection = "lake"
path       = "orders/day={window_start:%Y-%m-%d}"
"#,
    ),
    (
        EXPORT,
        "[schedule.for-each]",
        r#"
[params]
country = { type = "string", values = ["NO", "SE"] }

[schedule]
cron     = "15 4 * * *"
window   = "day"
start    = 2026-11-01
for-each = { country = ["NO", "SE"] }

[sink]
connection = "lake"
path       = "orders/day={window_start:%Y-%m-%d}/{country}"
"#,
    ),
    (
        EXPORT,
        "[params.<name>]",
        r#"
[params]
country = { type = "string", values = ["NO", "SE"], default = "NO" }
"#,
    ),
    (
        EXPORT,
        "[source]",
        r#"
[source]                           # a table of a database
connection = "shop"
table      = "public.orders"
columns    = ["id", "amount", "created_at"]
where      = "amount > 0"
"#,
    ),
    (
        EXPORT,
        "[source]",
        r#"
[source]                           # a query
connection = "shop"
query      = """
  SELECT id, amount, created_at FROM orders
  WHERE created_at >= :window_start AND created_at < :window_end
"""
"#,
    ),
    (
        EXPORT,
        "[source]",
        r#"
[source]                           # files
connection = "lake"
path       = "in/**/orders-*.csv.gz"
csv        = { delimiter = ";" }
fields     = { id = { type = "int64" }, amount = { type = "decimal(15,2)" } }
"#,
    ),
    (
        EXPORT,
        "[source.cursor]",
        r#"
[source]
connection = "shop"
table      = "orders"
cursor     = { column = "updated_at", lookback = "10m", start = 2026-01-01 }

[contract]
primary-key = ["id"]

[contract.fields]
id         = { type = "int64", required = true }
updated_at = { type = "timestamp(us, UTC)", required = true }

[sink]
connection = "shop"
table      = "copies.orders"
mode       = "upsert"
"#,
    ),
    (
        EXPORT,
        "[source.fields.<name>]",
        r#"
[source]
connection = "lake"
path       = "in/orders.csv"

[source.fields]
id      = { type = "int64" }
ordered = { type = "date" }
"#,
    ),
    (
        EXPORT,
        "[reference.<name>]",
        r#"
[reference.countries]
connection = "lake"
path       = "reference/countries.csv"
key        = ["code"]
fields     = { code = { type = "string" }, name = { type = "string" } }

[transform]
sql = "SELECT o.*, c.name AS country_name FROM input o LEFT JOIN countries c ON o.country = c.code"
"#,
    ),
    (
        EXPORT,
        "[transform]",
        r#"
[transform]
sql = "SELECT *, CAST(amount * 0.25 AS decimal(15,2)) AS vat FROM input WHERE amount > 0"
"#,
    ),
    (
        EXPORT,
        "[contract]",
        r#"
[contract]
version       = "1.2"
extra-columns = "drop"
max-rejected  = "0.1%"
primary-key   = ["id"]

[contract.fields]
id = { type = "int64", required = true }
"#,
    ),
    (
        EXPORT,
        "[contract.fields.<name>]",
        r#"
[contract.fields]
id       = { type = "int64", required = true }
email    = { type = "string", classification = "personal" }
amount   = { type = "decimal(15,2)", min = 0, max = 1_000_000 }
country  = { type = "string", values = ["NO", "SE"] }
"#,
    ),
    (
        EXPORT,
        "[protect.<name>]",
        r#"
[protect]
customer_id    = "tokenize"
customer_email = "hash"
comment        = "drop"
phone          = { method = "mask", keep = 3 }
amount         = { method = "generalize", step = 100 }
ordered_at     = { method = "generalize", to = "month" }
postcode       = { method = "generalize", keep = 2 }
"#,
    ),
    (
        EXPORT,
        "[sink]",
        r#"
[sink]                             # a folder for each delivery
connection  = "lake"
path        = "orders/{run}"
format      = "parquet"
compression = "zstd"
"#,
    ),
    (
        EXPORT,
        "[sink]",
        r#"
[sink]                             # one file of a partner's own making
connection = "lake"
path       = "acme/in"
file       = "ORDERS.csv.gz"
trigger    = "{file}.done"
empty      = "skip"
"#,
    ),
    (
        EXPORT,
        "[sink]",
        r#"
[sink]                             # a table
connection = "shop"
table      = "copies.orders"
mode       = "replace"
new-columns = "add"
"#,
    ),
    (
        EXPORT,
        "[sink.csv]",
        r#"
[sink]
connection = "lake"
path       = "orders"
format     = "csv"

[sink.csv]                         # the same words in [source.csv]
delimiter = ";"
decimal   = ","
encoding  = "windows-1252"
newline   = "\r\n"
timestamp = "%d.%m.%Y %H:%M:%S"
"#,
    ),
    (EXPORT, "[limits]", "[limits]\ntimeout = \"2h\"\nweight  = 2\n"),
    (
        EXPORT,
        "[retry]",
        r#"
[retry]
attempts      = 8
backoff       = "5s..10m"
give-up-after = "24h"
"#,
    ),
];
