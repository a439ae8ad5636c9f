//! Prepared queries that are templates: every text of their service part may hold `${…}`, filled in from the name that was asked for.
//!
//! What may stand between the braces is a small language: the variables `name.full`, `name.prefix` and `name.suffix`, the function `match(N)` (what the N-th group of the regular expression found), texts in quotes, numbers, and arithmetic.
//! `$$` stands for `$` itself. The words and their habits are those of the original's language in the year of 0.7.1, not of its later releases.

use model::{Error, PreparedQuery, QueryService, Text, re2};
use regex::bytes::Regex;

mod expression;

use expression::{Facts, Parts};

/// The only kind of template there is.
const NAME_PREFIX_MATCH: &str = "name_prefix_match";

/// Refuses a query that calls itself a template and can't be one; the text is what the original answers.
///
/// # Errors
/// If the kind is unknown, or if the regular expression or a text can't be read or filled in.
pub(crate) fn check_template(query: &PreparedQuery) -> Result<(), TemplateError> {
    if query.template.kind.is_empty() {
        return Ok(());
    }
    // With the shortest name that it will ever be asked for.
    Template::compile(query)?.render(&query.name)?;
    Ok(())
}

/// Refuses a query whose template is larger than what is read here, which it takes long to find out: whoever asks before
/// a query is written keeps everybody else from waiting for that.
///
/// What is wrong with it otherwise is said when it is written, after what is wrong with its name.
///
/// # Errors
/// [`Error::Invalid`], as applying it would say.
pub fn check_template_size(query: &PreparedQuery) -> Result<(), Error> {
    match check_template(query) {
        Err(error) if error.is_too_much() => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A template that was read: its expressions, its regular expression, and the query to fill them into.
#[derive(Debug)]
pub(crate) struct Template {
    prefix: Text,
    service: QueryService,
    /// What the texts of `service` mean, in the order in which [`visit`] meets them.
    texts: Vec<Parts>,
    regexp: Option<Regex>,
}

/// Why a template can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("Bad Template.Type '{0}'")]
    Kind(Text),
    #[error("Bad format '{text}' in Service{path}: {source}")]
    Format {
        text: Text,
        path: String,
        source: expression::Malformed,
    },
    #[error("Bad Regexp: {0}")]
    Regexp(#[from] re2::BadRegexp),
    #[error("Bad evaluation for '{text}' in Service{path}: {source}")]
    Evaluation {
        text: Text,
        path: String,
        source: expression::Unknown,
    },
}

impl TemplateError {
    /// Whether it may be sound, only larger than what is read here. The original has fewer bounds.
    pub(crate) fn is_too_much(&self) -> bool {
        match self {
            Self::Regexp(bad) => bad.is_too_much(),
            Self::Format { source, .. } => source.is_too_much(),
            Self::Kind(_) | Self::Evaluation { .. } => false,
        }
    }
}

impl From<TemplateError> for Error {
    fn from(error: TemplateError) -> Self {
        Self::Invalid(format!("failed compiling template: {error}"))
    }
}

impl Template {
    /// Reads the expressions of a query.
    pub(crate) fn compile(query: &PreparedQuery) -> Result<Self, TemplateError> {
        if query.template.kind != NAME_PREFIX_MATCH {
            return Err(TemplateError::Kind(query.template.kind.clone()));
        }
        let mut service = query.service.clone();
        let mut texts = Vec::new();
        visit(&mut service, &mut |path, text| {
            let parts = expression::parse(text).map_err(|source| TemplateError::Format {
                text: text.clone(),
                path: path.to_string(),
                source,
            })?;
            texts.push(parts);
            Ok::<_, TemplateError>(())
        })?;
        let regexp = &query.template.regexp;
        let regexp = match regexp.is_empty() {
            true => None,
            false => Some(re2::compile(regexp)?),
        };
        Ok(Self {
            prefix: query.name.clone(),
            service,
            texts,
            regexp,
        })
    }

    /// What the query asks when it was asked for by this name.
    pub(crate) fn render(&self, name: &[u8]) -> Result<QueryService, TemplateError> {
        let found = self.regexp.as_ref().and_then(|re| re.captures(name));
        let groups: Vec<&[u8]> = found
            .iter()
            .flat_map(|found| found.iter())
            .map(|group| group.map_or(&b""[..], |group| group.as_bytes()))
            .collect();
        let facts = Facts {
            full: name,
            prefix: &self.prefix,
            suffix: name.strip_prefix(&*self.prefix).unwrap_or(name),
            groups: &groups,
        };
        let mut service = self.service.clone();
        let mut texts = self.texts.iter();
        visit(&mut service, &mut |path, text| {
            if let Some(parts) = texts.next() {
                let filled = parts.fill(&facts);
                *text = filled.map_err(|source| TemplateError::Evaluation {
                    text: text.clone(),
                    path: path.to_string(),
                    source,
                })?;
            }
            Ok::<_, TemplateError>(())
        })?;
        Ok(service)
    }
}

/// Where in the service part a text stands; spelled only when something is wrong with it.
#[derive(Debug, Clone, Copy)]
enum Path<'a> {
    Field(&'static str),
    Item(&'static str, usize),
    Pair(&'static str, &'a Text),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(field) => f.write_str(field),
            Self::Item(field, place) => write!(f, "{field}[{place}]"),
            Self::Pair(field, name) => write!(f, "{field}[{name}]"),
        }
    }
}

/// Calls `each` with every text of the service part, always in the same order.
fn visit<E>(
    service: &mut QueryService,
    each: &mut impl FnMut(Path<'_>, &mut Text) -> Result<(), E>,
) -> Result<(), E> {
    each(Path::Field(".Service"), &mut service.service)?;
    for (place, text) in service.datacenters.iter_mut().flatten().enumerate() {
        each(Path::Item(".Failover.Datacenters", place), text)?;
    }
    each(Path::Field(".Near"), &mut service.near)?;
    for (place, text) in service.tags.iter_mut().flatten().enumerate() {
        each(Path::Item(".Tags", place), text)?;
    }
    for (name, text) in &mut service.node_meta {
        each(Path::Pair(".NodeMeta", name), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
