//! What a template may take while it runs.
//!
//! The evaluator bounds instructions only, and one instruction may double a text, repeat it a million
//! times or walk through a list of lists of lists. Here every value that an instruction makes is
//! weighed before the next instruction sees it, and every call is weighed before it is made, by the
//! filters and functions that [`super::program`] puts between a template's own instructions:
//!
//! - no value weighs more than [`MAX_VALUE`] or is nested deeper than [`MAX_DEPTH`]; iterators that
//!   compute as they go become lists, so that none is built upon another;
//! - all values ever made weigh no more than [`MAX_MADE`], which bounds the memory;
//! - no call does more than [`MAX_CALL`] steps, and all together do [`MAX_STEPS`], which bounds the
//!   time and what a call holds before its result is weighed.

use std::sync::Arc;

use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Largest weight of a value: bytes of its texts, and [`ITEM`] for each of its items.
const MAX_VALUE: u64 = 16 << 20;
/// Deepest nesting: evaluator and allocator go through it by recursion.
const MAX_DEPTH: usize = 64;
/// Weight of all values that are made in one run.
const MAX_MADE: u64 = 256 << 20;
/// Steps that one call may do.
const MAX_CALL: u64 = 1 << 28;
/// Steps that all walks and calls of a run may do: some seconds.
const MAX_STEPS: u64 = 1 << 30;
/// Steps of a call, which are those of the library, that are like one of ours.
const STEPS_OF_CALLS: u64 = 16;
/// Weight of a value beside its text.
const ITEM: u64 = 32;

/// Filters and functions that only [`super::program`] can name: no identifier starts like that.
pub(super) const MADE: &str = "!made";
pub(super) const MADE_OF_ITEMS: &str = "!made_of_items";
pub(super) const COMPARED: &str = "!compared";
pub(super) const FACTORS: &str = "!factors";
pub(super) const ATTRIBUTE: &str = "!attribute";
pub(super) const FILTER: &str = "!filter";
pub(super) const TEST: &str = "!test";
pub(super) const METHOD: &str = "!method";

type Result<T> = std::result::Result<T, Error>;

/// What a run has taken so far.
#[derive(Debug, Default)]
struct Taken {
    made: u64,
    steps: u64,
}

fn too_much(what: &str) -> Error {
    let message = format!("the template {what}; is it meant for this conversation?");
    Error::new(ErrorKind::InvalidOperation, message)
}

fn take(state: &mut State<'_, '_>, made: u64, steps: u64) -> Result<()> {
    let taken = state.get_or_insert_extension_with(Taken::default);
    taken.made = taken.made.saturating_add(made);
    taken.steps = taken.steps.saturating_add(steps);
    if taken.made > MAX_MADE {
        return Err(too_much(&format!("makes more than {MAX_MADE} bytes")));
    }
    if taken.steps > MAX_STEPS {
        return Err(too_much(&format!("takes more than {MAX_STEPS} steps")));
    }
    Ok(())
}

/// A walk through a value.
#[derive(Default)]
struct Scale {
    weight: u64,
    steps: u64,
}

impl Scale {
    /// Adds `value`; gives another in its place where it has iterators in it.
    fn weigh(&mut self, value: &Value, depth: usize) -> Result<Option<Value>> {
        self.steps += 1;
        let text = value.as_bytes().map_or(0, <[u8]>::len);
        self.weight += ITEM + text as u64;
        if self.weight > MAX_VALUE {
            return Err(too_much(&format!(
                "makes more than {MAX_VALUE} bytes at once"
            )));
        }
        let Some(object) = value.as_object() else {
            return Ok(None);
        };
        if depth == MAX_DEPTH {
            return Err(too_much(&format!(
                "nests values more than {MAX_DEPTH} deep"
            )));
        }
        match object.repr() {
            ObjectRepr::Map => self.map(object, depth),
            ObjectRepr::Seq => self.items(object, depth, false),
            ObjectRepr::Iterable => self.items(object, depth, true),
            _ => Ok(None),
        }
    }

    fn items(&mut self, object: &DynObject, depth: usize, lazy: bool) -> Result<Option<Value>> {
        let mut all = Vec::new();
        let mut changed = lazy;
        for item in object.try_iter().into_iter().flatten() {
            let new = self.weigh(&item, depth + 1)?;
            changed |= new.is_some();
            all.push(new.unwrap_or(item));
        }
        Ok(changed.then(|| Value::from(all)))
    }

    fn map(&mut self, object: &DynObject, depth: usize) -> Result<Option<Value>> {
        let mut all = Vec::new();
        let mut changed = false;
        for (key, value) in object.try_iter_pairs().into_iter().flatten() {
            self.weigh(&key, depth + 1)?;
            let new = self.weigh(&value, depth + 1)?;
            changed |= new.is_some();
            all.push((key, new.unwrap_or(value)));
        }
        Ok(changed.then(|| all.into_iter().collect()))
    }
}

/// Weighs what a call or an output made, which may be new to its last text.
fn made(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    let mut scale = Scale::default();
    let new = scale.weigh(&value, 0)?;
    take(state, scale.weight, scale.steps)?;
    Ok(new.unwrap_or(value))
}

/// Weighs what an operator made out of values that are there already.
fn made_of_items(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    let mut scale = Scale::default();
    let value = scale.weigh(&value, 0)?.unwrap_or(value);
    let own = match value.as_bytes() {
        Some(text) => text.len() as u64,
        None => ITEM * value.len().unwrap_or(0) as u64,
    };
    take(state, ITEM + own, scale.steps)?;
    Ok(value)
}

/// Counts the right side of a comparison, which takes no longer than going through it.
fn compared(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    let mut scale = Scale::default();
    scale.weigh(&value, 0)?;
    take(state, 0, scale.weight)?;
    Ok(value)
}

/// Refuses a namespace in a namespace, which could then hold itself.
fn attribute(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    fn holds_one(value: &Value, depth: usize) -> bool {
        let Some(object) = value.as_object().filter(|_| depth < MAX_DEPTH) else {
            return false;
        };
        let inside = |v: Value| holds_one(&v, depth + 1);
        match object.repr() {
            ObjectRepr::Map => {
                object.type_name().ends_with("::Namespace")
                    || object
                        .try_iter_pairs()
                        .into_iter()
                        .flatten()
                        .any(|(_, v)| inside(v))
            }
            ObjectRepr::Seq => object.try_iter().into_iter().flatten().any(inside),
            _ => false,
        }
    }
    if holds_one(&value, 0) {
        return Err(too_much("puts a namespace into a namespace"));
    }
    compared(state, value)
}

/// Counts a call. Whatever the library has takes no longer, and makes no more, than its largest
/// argument times its second largest: parts times separators, texts times their replacements, lists
/// times widths.
fn call(state: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<()> {
    let number = |v: &Value| v.as_usize().map_or(0, |n| n as u64);
    let mut sizes = Vec::with_capacity(args.len() + 1);
    for arg in args {
        let mut scale = Scale::default();
        scale.weigh(arg, 0)?;
        sizes.push((scale.weight - ITEM).max(number(arg)));
        if let Some(kwargs) = arg.as_object().filter(|_| arg.is_kwargs()) {
            let pairs = kwargs.try_iter_pairs().into_iter().flatten();
            sizes.extend(pairs.map(|(_, v)| number(&v)));
        }
        if name == "format" {
            sizes.push(largest_number(arg.as_str().unwrap_or_default()));
        }
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let [largest, second] = [0, 1].map(|i| sizes.get(i).copied().unwrap_or(1).max(1));
    // Every line is indented by as many as its depth.
    let deep = if name == "tojson" {
        MAX_DEPTH as u64
    } else {
        1
    };
    let steps = largest.saturating_mul(second).saturating_mul(deep);
    if steps > MAX_CALL {
        return Err(too_much(&format!("asks too much of `{name}`")));
    }
    take(state, 0, steps / STEPS_OF_CALLS)
}

/// The largest number that is written in a text: a width in a format.
fn largest_number(text: &str) -> u64 {
    let runs = text.split(|c: char| !c.is_ascii_digit());
    let value = |run: &str| {
        run.parse()
            .unwrap_or(if run.is_empty() { 0 } else { u64::MAX })
    };
    runs.map(value).max().unwrap_or(0)
}

/// What a template calls, as a function of the arguments and then the name. A filter would not be
/// given keywords to pass on.
#[derive(Debug)]
enum Call {
    Filter,
    Test,
    Method,
}

impl Object for Call {
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        let Some((Some(name), args)) = args.split_last().map(|(n, args)| (n.as_str(), args)) else {
            return Err(ErrorKind::InvalidOperation.into());
        };
        call(state, name, args)?;
        let value = match (&**self, args) {
            (Self::Test, _) => return state.perform_test(name, args).map(Value::from),
            (Self::Method, [object, args @ ..]) => object.call_method(state, name, args)?,
            _ => state.apply_filter(name, args)?,
        };
        made(state, value)
    }
}

/// Puts what is in this module into an environment.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter(MADE, made);
    environment.add_filter(MADE_OF_ITEMS, made_of_items);
    environment.add_filter(COMPARED, compared);
    environment.add_filter(ATTRIBUTE, attribute);
    environment.add_filter(FACTORS, |state: &mut State<'_, '_>, factors: Value| {
        let factors: Vec<Value> = factors.try_iter()?.collect();
        if factors.iter().any(|v| v.kind() != ValueKind::Number) {
            call(state, "*", &factors)?;
        }
        Ok::<_, Error>(Value::from(factors))
    });
    environment.add_global(FILTER, Value::from_object(Call::Filter));
    environment.add_global(TEST, Value::from_object(Call::Test));
    environment.add_global(METHOD, Value::from_object(Call::Method));
}
