//! The language between `${` and `}`.

use model::Text;

/// How deeply expressions may be nested.
const NESTING_MAX: usize = 50;

const NESTING: &str = "expression nests too deeply";

/// A text, cut into what stands as it is and what is filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Plain(Vec<u8>),
    Filled(Expression),
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Text(Parts),
    Int(i64),
    Float(f64),
    Variable(String),
    Call(String, Vec<Self>),
    Arithmetic(Box<Self>, Vec<(Operator, Self)>),
    Negative(Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// What expressions may ask about.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) full: &'a [u8],
    pub(super) prefix: &'a [u8],
    pub(super) suffix: &'a [u8],
    /// What the groups of the regular expression found; the first is the whole.
    pub(super) groups: &'a [&'a [u8]],
}

/// Why a text can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("1:{column}: {problem}")]
pub(crate) struct Malformed {
    /// In bytes, from 1.
    column: usize,
    problem: &'static str,
}

impl Malformed {
    /// Whether it may be sound, only nested more deeply than what is read here.
    pub(super) fn is_too_much(&self) -> bool {
        self.problem == NESTING
    }
}

/// Why a text can't be filled in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("unknown variable accessed: {0}")]
    Variable(String),
    #[error("unknown function called: {0}")]
    Function(String),
    #[error("match: expected 1 arguments, got {0}")]
    Arguments(usize),
    #[error("'{0}' is not a number")]
    Number(String),
    #[error("divide by zero")]
    DivideByZero,
    #[error("expected a string, got a number")]
    NotText,
}

/// Reads a text.
pub(super) fn parse(text: &[u8]) -> Result<Parts, Malformed> {
    let mut reader = Reader {
        bytes: text,
        at: 0,
        depth: 0,
    };
    let parts = reader.parts(false)?;
    Ok(parts)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed {
            column: self.at + 1,
            problem,
        }
    }

    /// Up to the end, or up to the closing quote, which is taken.
    fn parts(&mut self, quoted: bool) -> Result<Parts, Malformed> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        loop {
            match *self.rest() {
                [] if quoted => return Err(self.malformed("expected closing quote")),
                [] => break,
                [b'"', ..] if quoted => {
                    self.at += 1;
                    break;
                }
                [b'$', b'$', ..] => {
                    plain.push(b'$');
                    self.at += 2;
                }
                [b'$', b'{', ..] => {
                    if !plain.is_empty() {
                        parts.push(Part::Plain(std::mem::take(&mut plain)));
                    }
                    self.at += 2;
                    let expression = self.expression()?;
                    self.expect(b'}', "expected \"}\"")?;
                    parts.push(Part::Filled(expression));
                }
                // Others stand for themselves, backslash included.
                [b'\\', escaped @ (b'n' | b'\\' | b'"'), ..] if quoted => {
                    plain.push(if escaped == b'n' { b'\n' } else { escaped });
                    self.at += 2;
                }
                [byte, ..] => {
                    plain.push(byte);
                    self.at += 1;
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Plain(plain));
        }
        Ok(Parts(parts))
    }

    fn skip_blanks(&mut self) {
        while self.rest().first().is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let there = self.rest().first() == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), Malformed> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.malformed(problem))
        }
    }

    fn expression(&mut self) -> Result<Expression, Malformed> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(self.malformed(NESTING));
        }
        let sum = self.sum();
        self.depth -= 1;
        sum
    }

    /// From the left to the right, whatever the signs are: the original knows no multiplication before addition.
    fn sum(&mut self) -> Result<Expression, Malformed> {
        const OPERATORS: [(u8, Operator); 5] = [
            (b'+', Operator::Add),
            (b'-', Operator::Subtract),
            (b'*', Operator::Multiply),
            (b'/', Operator::Divide),
            (b'%', Operator::Remainder),
        ];
        let first = self.term()?;
        let mut others = Vec::new();
        while let Some((_, operator)) = OPERATORS.iter().find(|(sign, _)| self.take(*sign)) {
            others.push((*operator, self.term()?));
        }
        Ok(if others.is_empty() {
            first
        } else {
            Expression::Arithmetic(Box::new(first), others)
        })
    }

    fn term(&mut self) -> Result<Expression, Malformed> {
        self.skip_blanks();
        match *self.rest() {
            [b'"', ..] => {
                self.nested(|reader| {
                    let mut texts = Vec::new();
                    // Several that follow each other are one.
                    while reader.take(b'"') {
                        texts.append(&mut reader.parts(true)?.0);
                    }
                    Ok(Expression::Text(Parts(texts)))
                })
            }
            [b'(', ..] => {
                self.at += 1;
                let inner = self.expression()?;
                self.expect(b')', "expected \")\"")?;
                Ok(inner)
            }
            [b'-', ..] => {
                self.at += 1;
                self.nested(|reader| Ok(Expression::Negative(Box::new(reader.term()?))))
            }
            [first, ..] if first.is_ascii_digit() => self.number(),
            [first, ..] if is_letter(first) => {
                let name = self.name();
                if !self.take(b'(') {
                    return Ok(Expression::Variable(name));
                }
                let mut arguments = Vec::new();
                // A comma in front of the first one is passed over.
                let _ = self.take(b',');
                if !self.take(b')') {
                    loop {
                        arguments.push(self.expression()?);
                        if !self.take(b',') {
                            break;
                        }
                    }
                    self.expect(b')', "expected \")\"")?;
                }
                Ok(Expression::Call(name, arguments))
            }
            _ => Err(self.malformed("expected expression")),
        }
    }

    fn nested(
        &mut self,
        inner: impl Fn(&mut Self) -> Result<Expression, Malformed>,
    ) -> Result<Expression, Malformed> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(self.malformed(NESTING));
        }
        let expression = inner(self);
        self.depth -= 1;
        expression
    }

    fn number(&mut self) -> Result<Expression, Malformed> {
        let part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let len = self.rest().iter().take_while(|byte| part(byte)).count();
        let digits = String::from_utf8_lossy(&self.rest()[..len]).into_owned();
        let number = if digits.contains('.') {
            digits.parse().ok().map(Expression::Float)
        } else {
            // A zero in front makes it octal.
            let base = if digits.starts_with('0') { 8 } else { 10 };
            i64::from_str_radix(&digits, base).ok().map(Expression::Int)
        };
        let number = number.ok_or_else(|| self.malformed("invalid number"))?;
        self.at += len;
        Ok(number)
    }

    /// A minus within a name belongs to the name: subtraction needs blanks around it.
    fn name(&mut self) -> String {
        let part = |byte: u8| {
            is_letter(byte) || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
        };
        let len = self.rest().iter().take_while(|byte| part(**byte)).count();
        let name = String::from_utf8_lossy(&self.rest()[..len]).into_owned();
        self.at += len;
        name
    }
}

/// Letters outside of ASCII count, without a closer look.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || !byte.is_ascii()
}

enum Value {
    Text(Vec<u8>),
    Int(i64),
    Float(f64),
}

impl Parts {
    /// The text with everything filled in.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> Result<Text, Unknown> {
        // Alone, an expression keeps its own kind, and only a text will do.
        if let [Part::Filled(only)] = self.0.as_slice() {
            return match only.evaluate(facts)? {
                Value::Text(text) => Ok(Text::from(text)),
                Value::Int(_) | Value::Float(_) => Err(Unknown::NotText),
            };
        }
        Ok(Text::from(self.join(facts)?))
    }

    fn join(&self, facts: &Facts<'_>) -> Result<Vec<u8>, Unknown> {
        let mut text = Vec::new();
        for part in &self.0 {
            match part {
                Part::Plain(plain) => text.extend_from_slice(plain),
                Part::Filled(expression) => {
                    text.extend_from_slice(&expression.evaluate(facts)?.into_text());
                }
            }
        }
        Ok(text)
    }
}

impl Expression {
    fn evaluate(&self, facts: &Facts<'_>) -> Result<Value, Unknown> {
        Ok(match self {
            Self::Text(parts) => Value::Text(parts.join(facts)?),
            Self::Int(number) => Value::Int(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Variable(name) => Value::Text(
                match name.as_str() {
                    "name.full" => facts.full,
                    "name.prefix" => facts.prefix,
                    "name.suffix" => facts.suffix,
                    _ => return Err(Unknown::Variable(name.clone())),
                }
                .to_vec(),
            ),
            Self::Call(name, arguments) => {
                if name != "match" {
                    return Err(Unknown::Function(name.clone()));
                }
                let [which] = arguments.as_slice() else {
                    return Err(Unknown::Arguments(arguments.len()));
                };
                let which = which.evaluate(facts)?.into_int()?;
                // A group that isn't there is empty: a template must not fail when it is asked.
                let group = usize::try_from(which)
                    .ok()
                    .and_then(|which| facts.groups.get(which))
                    .copied()
                    .unwrap_or_default();
                Value::Text(group.to_vec())
            }
            Self::Negative(inner) => match inner.evaluate(facts)?.into_number()? {
                Value::Float(number) => Value::Float(-number),
                number => Value::Int(number.into_int()?.wrapping_neg()),
            },
            Self::Arithmetic(first, others) => {
                let mut sum = first.evaluate(facts)?.into_number()?;
                for (operator, operand) in others {
                    let operand = operand.evaluate(facts)?.into_number()?;
                    sum = operator.apply(sum, operand)?;
                }
                sum
            }
        })
    }
}

impl Operator {
    fn apply(self, left: Value, right: Value) -> Result<Value, Unknown> {
        if let (Value::Int(left), Value::Int(right)) = (&left, &right) {
            let (left, right) = (*left, *right);
            if right == 0 && matches!(self, Self::Divide | Self::Remainder) {
                return Err(Unknown::DivideByZero);
            }
            return Ok(Value::Int(match self {
                Self::Add => left.wrapping_add(right),
                Self::Subtract => left.wrapping_sub(right),
                Self::Multiply => left.wrapping_mul(right),
                Self::Divide => left.wrapping_div(right),
                Self::Remainder => left.wrapping_rem(right),
            }));
        }
        let (left, right) = (left.into_float()?, right.into_float()?);
        Ok(Value::Float(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        }))
    }
}

impl Value {
    fn into_text(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text,
            Self::Int(number) => number.to_string().into_bytes(),
            Self::Float(number) => number.to_string().into_bytes(),
        }
    }

    /// A text that spells a number counts as one.
    fn into_number(self) -> Result<Self, Unknown> {
        let Self::Text(text) = self else {
            return Ok(self);
        };
        let text = String::from_utf8_lossy(&text);
        if let Ok(number) = text.parse() {
            return Ok(Self::Int(number));
        }
        match text.parse() {
            Ok(number) => Ok(Self::Float(number)),
            Err(_) => Err(Unknown::Number(text.into_owned())),
        }
    }

    fn into_int(self) -> Result<i64, Unknown> {
        match self.into_number()? {
            Self::Int(number) => Ok(number),
            // Towards zero, and what is out of range to its end.
            #[expect(clippy::cast_possible_truncation, reason = "that is what is meant")]
            Self::Float(number) => Ok(number as i64),
            Self::Text(text) => Err(Unknown::Number(String::from_utf8_lossy(&text).into_owned())),
        }
    }

    fn into_float(self) -> Result<f64, Unknown> {
        match self.into_number()? {
            #[expect(clippy::cast_precision_loss, reason = "that is what is meant")]
            Self::Int(number) => Ok(number as f64),
            Self::Float(number) => Ok(number),
            Self::Text(text) => Err(Unknown::Number(String::from_utf8_lossy(&text).into_owned())),
        }
    }
}
