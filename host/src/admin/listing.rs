//! The list of finished recordings, `/api/v1/recordings`: those on the disk, and those in the home; their numbers, and
//! their export.
//!
//! A recording that is in both is one. What the disk has comes from the disk.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::api::{as_json, asked, count};
use super::{Admin, Problem, accept, stream};
use crate::home::Fault;
use crate::home::index::{Library, Listed};
use crate::lock::lock;
use crate::record::{
    Brief, Cursor, Filter, Order, Page, Record, SearchError, Summary, Zone, csv, day_of, parse_day,
};
use crate::store::Store;

/// Recordings on one page: the default and the maximum.
const PAGE: usize = 50;
const PAGE_MAX: usize = 200;

/// Longest search text, in bytes.
const SEARCH_BYTES_MAX: usize = 200;

/// The longest wait of a list of the disk for the home.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for which lists of the disk do not ask a home that did not answer.
const REST: Duration = Duration::from_secs(10);

/// Content types of lines.
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";

/// A recording of the list.
struct Item {
    place: Cursor,
    /// Its URL in the home, if it has one.
    url: Option<Box<str>>,
    summary: Box<RawValue>,
}

impl From<Listed> for Item {
    fn from(Listed { place, url, summary }: Listed) -> Self {
        Self { place, url: Some(url), summary }
    }
}

impl Admin {
    /// A page of the recordings in both places, and the trouble of the home if it does not answer.
    async fn page(
        &self,
        wish: &Wish,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Page<Item>, Option<String>), Problem> {
        let Wish { filter, order } = wish.clone();
        let (library, has_disk) = (self.sources.library.as_ref(), self.sources.store.is_some());
        let mut pages = Vec::new();
        let mut trouble = None;
        if library.is_some() && order != Order::Newest {
            if !has_disk {
                return Err(Problem::bad_request(
                    "`sort` of a home is -started: it lists its recordings by their starts, the last one first",
                ));
            }
            trouble =
                Some("recordings that are in the home alone are listed by -started only".into());
        } else if let Some(library) = library {
            match self.home_page(library, &filter, after.as_ref(), limit, has_disk).await {
                Ok(page) => pages.push(page),
                Err(fault) if has_disk => {
                    trouble = Some(format!("the recordings in the home are not listed: {fault}"));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        if has_disk {
            let item = |record: &Record| {
                let summary = to_raw_value(&Summary::of(&Brief::of(record))).ok()?;
                Some(Item { place: Cursor::of(record)?, url: record.home.clone(), summary })
            };
            let list = move |store: &Store| {
                store.catalog().list(&filter, order, after.as_ref(), limit, item)
            };
            let Page { records, next, is_complete } = self.read(list).await?;
            let records = records.into_iter().flatten().collect();
            pages.insert(0, Page { records, next, is_complete });
        }
        let one = if pages.len() == 1 { pages.pop() } else { None };
        Ok((one.unwrap_or_else(|| joined(pages, limit)), trouble))
    }

    /// A page of the home. Beside a disk it is waited for only a while.
    async fn home_page(
        &self,
        library: &Library,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
        has_disk: bool,
    ) -> Result<Page<Item>, Fault> {
        let list = async {
            let Page { records, next, is_complete } = library.list(filter, after, limit).await?;
            Ok(Page { records: records.into_iter().map(Item::from).collect(), next, is_complete })
        };
        if !has_disk {
            return list.await;
        }
        let late = |reason: &str| Fault::Away { reason: reason.to_owned(), wait: REST };
        if lock(&self.home_rests).is_some_and(|until| Instant::now() < until) {
            return Err(late("it did not answer just now"));
        }
        let listed = tokio::time::timeout(PATIENCE, list).await;
        let listed = listed.unwrap_or_else(|_| Err(late("no answer in time")));
        if let Err(Fault::Away { .. } | Fault::Unwell(_)) = &listed {
            *lock(&self.home_rests) = Some(Instant::now() + REST);
        }
        listed
    }
}

/// One page of several in the default order, with each recording once.
fn joined(pages: Vec<Page<Item>>, limit: usize) -> Page<Item> {
    let is_complete = pages.iter().all(|page| page.is_complete);
    // What is behind the end of one page is not known of all.
    let end = pages.iter().filter_map(|page| page.next.clone()).max();
    let mut items: Vec<Item> = pages.into_iter().flat_map(|page| page.records).collect();
    items.sort_by(|a, b| b.place.cmp(&a.place));
    let mut urls = HashSet::new();
    items.retain(|item| item.url.as_ref().is_none_or(|url| urls.insert(url.clone())));
    items.retain(|item| end.as_ref().is_none_or(|end| item.place >= *end));
    if items.len() <= limit {
        return Page { records: items, next: end, is_complete };
    }
    items.truncate(limit);
    let next = items.last().map(|item| item.place.clone());
    Page { records: items, next, is_complete }
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    q: Option<String>,
    state: Option<String>,
    from: Option<String>,
    to: Option<String>,
    sort: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    format: Option<String>,
    zone: Option<String>,
}

/// A list that is asked for.
#[derive(Clone)]
struct Wish {
    filter: Filter,
    order: Order,
}

/// The form of a list.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Form {
    /// A page.
    Json,
    /// All that is asked for, in lines.
    Csv,
    Lines,
}

/// An end of the time that a list is of.
#[derive(Clone, Copy)]
enum When {
    Day(Date),
    Instant(Timestamp),
}

impl When {
    fn read(text: Option<String>) -> Result<Option<Self>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let read = parse_day(&text).map(Self::Day);
        read.or_else(|| text.parse().ok().map(Self::Instant)).map(Some).ok_or_else(|| {
            let problem =
                "`from` and `to` are days like 2026-11-22, or times like 2026-11-22T08:00:00Z";
            Problem::bad_request(problem)
        })
    }

    const fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Day(_) => None,
            Self::Instant(instant) => Some(instant),
        }
    }

    /// The day in UTC.
    fn day(self) -> Date {
        match self {
            Self::Day(day) => day,
            Self::Instant(instant) => day_of(instant),
        }
    }
}

/// A parameter that is not empty.
fn given(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

impl ListQuery {
    fn wish(&self) -> Result<Wish, Problem> {
        let state = match given(self.state.as_ref()) {
            None => None,
            Some(state) => Some(serde_json::from_value(state.as_str().into()).map_err(|_| {
                Problem::bad_request("`state` is complete, partial, recovered or failed")
            })?),
        };
        let text = self.q.as_deref().unwrap_or_default();
        if text.len() > SEARCH_BYTES_MAX {
            return Err(Problem::bad_request("`q` is too long"));
        }
        let search =
            text.parse().map_err(|error: SearchError| Problem::bad_request(error.to_string()))?;
        let order = given(self.sort.as_ref()).map(|text| text.parse()).transpose();
        let order =
            order.map_err(|error: String| Problem::bad_request(format!("`sort`: {error}")))?;
        let when = |text: Option<&String>| When::read(given(text).cloned());
        let (from, to) = (when(self.from.as_ref())?, when(self.to.as_ref())?);
        let (since, until) = (from.and_then(When::instant), to.and_then(When::instant));
        let (from, to) = (from.map(When::day), to.map(When::day));
        let filter = Filter { search, state, from, to, since, until };
        Ok(Wish { filter, order: order.unwrap_or_default() })
    }

    fn form(&self, headers: &HeaderMap) -> Result<Form, Problem> {
        let wished = |kind| accept::quality(headers, header::ACCEPT, kind).unwrap_or(0.0);
        match given(self.format.as_ref()).map(String::as_str) {
            Some("json") => Ok(Form::Json),
            Some("csv") => Ok(Form::Csv),
            Some("ndjson") => Ok(Form::Lines),
            Some(_) => Err(Problem::bad_request("`format` is json, csv or ndjson")),
            None => {
                let forms = [(CSV, Form::Csv), (NDJSON, Form::Lines)];
                let json = wished("application/json");
                let best = forms.into_iter().find(|(kind, _)| wished(kind) > json);
                Ok(best.map_or(Form::Json, |(_, form)| form))
            }
        }
    }
}

/// `GET /api/v1/recordings`.
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = asked(query)?;
    let wish = query.wish()?;
    let form = query.form(&headers)?;
    let vary = [(header::VARY, "accept")];
    if form != Form::Json {
        if given(query.limit.as_ref()).or(given(query.cursor.as_ref())).is_some() {
            let detail = "CSV and NDJSON have all recordings that are asked for: leave out `limit` and `cursor`";
            return Err(Problem::bad_request(detail));
        }
        return Ok((vary, export(admin, wish, form).await?).into_response());
    }
    let limit = count("limit", query.limit.as_deref(), PAGE, PAGE_MAX)?;
    let after = given(query.cursor.as_ref()).map(|text| {
        Cursor::read(text, wish.order).ok_or_else(|| {
            Problem::bad_request(
                "unknown cursor: pass `next` of the previous page unchanged, with its `sort`",
            )
        })
    });
    let (page, trouble) = admin.page(&wish, after.transpose()?, limit).await?;
    #[derive(Serialize)]
    struct Recordings {
        recordings: Vec<Box<RawValue>>,
        next: Option<String>,
        complete: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    }
    let recordings = page.records.into_iter().map(|item| item.summary).collect();
    let next = page.next.map(|cursor| cursor.text(wish.order));
    let complete = page.is_complete;
    let page = as_json(&Recordings { recordings, next, complete, warning: trouble });
    Ok((vary, page).into_response())
}

/// All recordings that are asked for, in lines.
async fn export(admin: Admin, wish: Wish, form: Form) -> Result<Response, Problem> {
    // Errors of the first page are still answered.
    let mut page = admin.page(&wish, None, PAGE_MAX).await?.0;
    if !page.is_complete {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the index of the recordings is still being made: ask again, or by -started",
        ));
    }
    let (kind, name) = match form {
        Form::Csv => ("text/csv; charset=utf-8; header=present", "recordings.csv"),
        _ => (NDJSON, "recordings.ndjson"),
    };
    let body = stream::whole_body(async move |feed| {
        if form == Form::Csv {
            feed.send(csv::head()).await?;
        }
        loop {
            let mut lines = Vec::new();
            for Item { summary, .. } in page.records {
                if form == Form::Csv {
                    lines.extend(csv::line(summary.get(), csv::Numbers::Shown));
                } else {
                    lines.extend_from_slice(summary.get().as_bytes());
                    lines.push(b'\n');
                }
            }
            if !lines.is_empty() {
                feed.send(lines).await?;
            }
            let Some(next) = page.next else { return Ok(()) };
            // The client learns of it by the end that is missing.
            page = admin.page(&wish, Some(next), PAGE_MAX).await.map_err(|_| stream::Gone)?.0;
        }
    });
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((head, body).into_response())
}

/// `GET /api/v1/recordings/days`: the numbers of the recordings that match.
pub(super) async fn days(
    State(admin): State<Admin>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = asked(query)?;
    let filter = query.wish()?.filter;
    let zone = given(query.zone.as_ref()).map(|text| text.parse()).transpose();
    let zone: Zone = zone
        .map_err(|error: &str| Problem::bad_request(format!("`zone`: {error}")))?
        .unwrap_or_default();
    let counts = admin.read(move |store| store.catalog().count(&filter, &zone)).await?;
    #[derive(Serialize)]
    struct OfDay {
        day: Date,
        recordings: u64,
    }
    #[derive(Serialize)]
    struct Days {
        total: u64,
        days: Vec<OfDay>,
        complete: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        warning: Option<&'static str>,
    }
    let total = counts.total();
    let days = counts.days.into_iter().rev();
    let days = days.map(|(day, recordings)| OfDay { day, recordings }).collect();
    let home = admin.sources.library.as_ref();
    let warning = home.map(|_| "recordings that are in the home alone are not counted");
    Ok(as_json(&Days { total, days, complete: counts.is_complete, warning }))
}
