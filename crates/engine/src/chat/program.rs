//! A template made into instructions, with those of [`super::meter`] between them.
//!
//! This reaches into the library's machinery, for which it promises nothing from one version to the
//! next: `Cargo.toml` names the exact version.

use std::collections::BTreeMap;

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, eval, make_string_output, parse, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use super::meter;

/// Instructions that a run may take, ours among them; one that loops without end is stopped here.
const FUEL: u64 = 10_000_000;
/// Longest source.
const MAX_SOURCE: usize = 1 << 20;
/// Tokens between the braces of one tag. Operators in a row make a tree as deep as they are many,
/// through which the library goes by recursion.
pub(super) const MAX_TAG: usize = 4096;
/// Tags that continue an `if`; each lies inside the one before.
pub(super) const MAX_ELIFS: usize = 1024;
/// Stack of the thread that does it: enough for all recursion within these bounds.
const STACK: usize = 64 << 20;
/// Name of the template, seen in error messages.
const NAME: &str = "chat_template";
/// A variable that is 1.
const ONE: &str = "__one";
/// An instruction's place in the cache of filters: none.
const NOT_CACHED: u8 = !0;

type Result<T> = std::result::Result<T, Error>;
type Compiled<'a> = (Instructions<'a>, BTreeMap<&'a str, Instructions<'a>>);

/// A template that parses.
#[derive(Debug, Clone)]
pub(super) struct Program {
    source: String,
    environment: Environment<'static>,
}

impl Program {
    /// Reads a template; `environment` has the functions that it may call.
    pub(super) fn new(source: &str, mut environment: Environment<'static>) -> Result<Self> {
        environment.set_fuel(Some(FUEL));
        environment.add_global(ONE, 1);
        // It writes all variables at once.
        environment.remove_global("debug");
        meter::install(&mut environment);
        let source = unfold(source)?;
        let this = Self {
            source,
            environment,
        };
        on_large_stack(|| compile(&this.source).map(drop))?;
        Ok(this)
    }

    /// What the template writes.
    pub(super) fn run(&self, values: Value) -> Result<String> {
        on_large_stack(|| {
            let (instructions, blocks) = compile(&self.source)?;
            let mut text = String::new();
            let mut output = make_string_output(&mut text);
            let escape = AutoEscape::None;
            eval(
                &self.environment,
                &instructions,
                values,
                &blocks,
                &mut output,
                escape,
            )?;
            Ok(text)
        })
    }
}

/// Calls `work` on a thread of its own; a panic of the library is an error.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let error = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work);
        let thread = thread.map_err(|e| error(format!("no thread to evaluate it: {e}")))?;
        thread.join().unwrap_or_else(|_| {
            let what = "it cannot be evaluated; is it written for other programs?";
            Err(error(what.into()))
        })
    })
}

/// Whitespace as transformers treats it.
fn syntax() -> Result<SyntaxConfig> {
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).build()
}

/// Checks the size of a source; multiplies every left factor by a variable, as the library
/// multiplies constants when it compiles them, texts too, and before anything counts; and puts an
/// `if` in the place of transformers' `generation`, which the library does not know.
fn unfold(source: &str) -> Result<String> {
    let too_large = |what: String| Error::new(ErrorKind::SyntaxError, what);
    if source.len() > MAX_SOURCE {
        let what = format!("{} bytes are more than any template has", source.len());
        return Err(too_large(what));
    }
    let mut unfolded = String::new();
    let (mut copied, mut in_tag, mut elifs) = (0, 0, 0);
    let (mut splat, mut block) = (false, false);
    for token in tokenize(source, false, syntax()?) {
        let (token, span) = token?;
        in_tag += 1;
        match &token {
            Token::BlockStart | Token::VariableStart => {
                in_tag = 0;
                block = matches!(token, Token::BlockStart);
            }
            Token::Ident("elif") => elifs += 1,
            // They mark what a model is trained on, and write what is in them.
            Token::Ident(name @ ("generation" | "endgeneration")) if in_tag == 1 && block => {
                unfolded.push_str(&source[copied..span.start_offset as usize]);
                unfolded.push_str(if *name == "generation" {
                    "if true"
                } else {
                    "endif"
                });
                copied = span.end_offset as usize;
            }
            Token::Mul if !splat => {
                let end = span.end_offset as usize;
                unfolded.push_str(&source[copied..end]);
                unfolded.push_str(ONE);
                unfolded.push('*');
                copied = end;
            }
            _ => {}
        }
        if in_tag > MAX_TAG {
            return Err(too_large(format!("more than {MAX_TAG} words in one tag")));
        }
        if elifs > MAX_ELIFS {
            return Err(too_large(format!("more than {MAX_ELIFS} times `elif`")));
        }
        // There a star is no operator.
        splat = matches!(token, Token::ParenOpen | Token::Comma);
    }
    Ok(unfolded + &source[copied..])
}

fn compile(source: &str) -> Result<Compiled<'_>> {
    let tree = parse(source, NAME, syntax()?)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&tree);
    let (instructions, blocks) = generator.finish();
    let metered = |(name, block)| Ok((name, metered(&block)?));
    let blocks = blocks.into_iter().map(metered);
    Ok((
        self::metered(&instructions)?,
        blocks.collect::<Result<_>>()?,
    ))
}

/// The same instructions, with those around them that weigh what they make.
fn metered<'a>(old: &Instructions<'a>) -> Result<Instructions<'a>> {
    let mut places = Vec::new();
    let mut all = Vec::new();
    while let Some(instruction) = old.get(places.len() as u32) {
        let index = places.len() as u32;
        places.push(all.len() as u32);
        around(instruction.clone(), |new| all.push((new, index)))?;
    }
    places.push(all.len() as u32);
    let mut new = Instructions::new(old.name(), old.source());
    for (mut instruction, index) in all {
        use Instruction as I;
        if let I::Iterate(to)
        | I::Jump(to)
        | I::JumpIfFalse(to)
        | I::JumpIfFalseOrPop(to)
        | I::JumpIfTrueOrPop(to)
        | I::BuildMacro(_, to, _) = &mut instruction
        {
            *to = places[*to as usize];
        }
        match old.get_span(index) {
            Some(span) => new.add_with_span(instruction, span),
            None => new.add(instruction),
        };
    }
    Ok(new)
}

/// One instruction and what goes before and after it.
fn around<'a>(instruction: Instruction<'a>, mut add: impl FnMut(Instruction<'a>)) -> Result<()> {
    use Instruction as I;
    let filter = |name| I::ApplyFilter(name, Some(1), NOT_CACHED);
    let named = |function, name: &str, args: Option<u16>| {
        let args = args.and_then(|n| n.checked_add(1));
        let args = args.ok_or_else(|| {
            let what = format!("`{name}` is called with a list of arguments");
            Error::new(ErrorKind::SyntaxError, what)
        })?;
        let name = I::LoadConst(Value::from(name));
        Ok::<_, Error>([name, I::CallFunction(function, Some(args))])
    };
    match instruction {
        I::ApplyFilter(name, args, _) => named(meter::FILTER, name, args)?.map(add),
        I::PerformTest(name, args, _) => named(meter::TEST, name, args)?.map(add),
        I::CallMethod(name, args) => named(meter::METHOD, name, args)?.map(add),
        I::EmitRaw(text) => {
            add(I::LoadConst(Value::from(text)));
            [filter(meter::MADE), I::Emit].map(add)
        }
        I::Emit => [filter(meter::MADE), I::Emit].map(add),
        I::EndCapture | I::CallFunction(..) | I::CallObject(_) => {
            [instruction, filter(meter::MADE)].map(add)
        }
        I::Slice
        | I::BuildMap(_)
        | I::BuildList(_)
        | I::BuildTuple(_)
        | I::Add
        | I::StringConcat => [instruction, filter(meter::MADE_OF_ITEMS)].map(add),
        I::Mul => {
            for before in [
                I::BuildList(Some(2)),
                filter(meter::FACTORS),
                I::UnpackList(2),
                I::Swap,
            ] {
                add(before);
            }
            [instruction, filter(meter::MADE_OF_ITEMS)].map(add)
        }
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => {
            [filter(meter::COMPARED), instruction].map(add)
        }
        I::SetAttr(_) => {
            for before in [I::Swap, filter(meter::ATTRIBUTE), I::Swap] {
                add(before);
            }
            add(instruction);
            return Ok(());
        }
        other => {
            add(other);
            return Ok(());
        }
    };
    Ok(())
}
