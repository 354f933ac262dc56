//! Flags, computed from the last flag-setting operation only when something asks (SDM vol. 1, 3.4.3).

use crate::backend::{Backend, Bin, Lazy, Rel, Un, W};
use iced_x86::ConditionCode;
use vkernel_abi::state::{AF, CF, OF, PF, SF, ZF};

/// The value of flag `f` (not DF), 0 or 1.
pub fn get_flag<B: Backend>(b: &mut B, f: usize) -> B::V {
    match *b.lazy() {
        None => b.stored_flag(f),
        Some(l) => compute(b, l, f),
    }
}

fn width<V>(l: &Lazy<V>) -> W {
    match l {
        Lazy::Add { w, .. }
        | Lazy::Adc { w, .. }
        | Lazy::Sub { w, .. }
        | Lazy::Sbb { w, .. }
        | Lazy::Logic { w, .. }
        | Lazy::Inc { w, .. }
        | Lazy::Dec { w, .. }
        | Lazy::Shift { w, .. }
        | Lazy::Float { w, .. } => *w,
    }
}

fn result<V: Copy>(l: &Lazy<V>) -> V {
    match l {
        Lazy::Add { r, .. }
        | Lazy::Adc { r, .. }
        | Lazy::Sub { r, .. }
        | Lazy::Sbb { r, .. }
        | Lazy::Logic { r, .. }
        | Lazy::Inc { r, .. }
        | Lazy::Dec { r, .. }
        | Lazy::Shift { r, .. } => *r,
        Lazy::Float { a, .. } => *a,
    }
}

fn compute<B: Backend>(b: &mut B, l: Lazy<B::V>, f: usize) -> B::V {
    if let Lazy::Float { w, a, b: y } = l {
        return compare_flag(b, f, w, a, y);
    }
    let w = width(&l);
    let r = result(&l);
    match f {
        ZF => b.un(Un::Eqz, w, r),
        SF => {
            let zero = b.c(0);
            b.bin(Bin::LtS, w, r, zero)
        }
        PF => {
            let low = b.trunc(W::B1, r);
            let n = b.un(Un::Popcnt, W::B4, low);
            let one = b.c(1);
            let odd = b.bin(Bin::And, W::B4, n, one);
            b.un(Un::Eqz, W::B4, odd)
        }
        CF => carry(b, l),
        OF => overflow(b, l),
        AF => adjust(b, l),
        _ => b.stored_flag(f),
    }
}

/// A flag after UCOMIS* or COMIS*.
fn compare_flag<B: Backend>(b: &mut B, f: usize, w: W, x: B::V, y: B::V) -> B::V {
    let negated = match f {
        PF => return b.float_is(Rel::Unordered, w, x, y),
        ZF => Rel::LessOrGreater,
        CF => Rel::GreaterOrEqual,
        _ => return b.c(0),
    };
    let v = b.float_is(negated, w, x, y);
    not(b, v)
}

fn carry<B: Backend>(b: &mut B, l: Lazy<B::V>) -> B::V {
    match l {
        Lazy::Add { w, a, r, .. } => b.bin(Bin::LtU, w, r, a),
        Lazy::Adc { w, a, c, r, .. } => {
            let less = b.bin(Bin::LtU, w, r, a);
            let same = b.bin(Bin::Eq, w, r, a);
            let wrapped = b.bin(Bin::And, W::B4, same, c);
            b.bin(Bin::Or, W::B4, less, wrapped)
        }
        Lazy::Sub { w, a, b: y, .. } => b.bin(Bin::LtU, w, a, y),
        Lazy::Sbb { w, a, b: y, c, .. } => {
            let less = b.bin(Bin::LtU, w, a, y);
            let same = b.bin(Bin::Eq, w, a, y);
            let borrowed = b.bin(Bin::And, W::B4, same, c);
            b.bin(Bin::Or, W::B4, less, borrowed)
        }
        Lazy::Logic { .. } | Lazy::Float { .. } => b.c(0),
        Lazy::Inc { cf, .. } | Lazy::Dec { cf, .. } | Lazy::Shift { cf, .. } => cf,
    }
}

/// Sign bit, as 0 or 1, of `(x ^ y) & (x ^ z)`.
fn sign_of_and<B: Backend>(b: &mut B, w: W, x: B::V, y: B::V, z: B::V) -> B::V {
    let p = b.bin(Bin::Xor, w, x, y);
    let q = b.bin(Bin::Xor, w, x, z);
    let both = b.bin(Bin::And, w, p, q);
    let zero = b.c(0);
    b.bin(Bin::LtS, w, both, zero)
}

fn overflow<B: Backend>(b: &mut B, l: Lazy<B::V>) -> B::V {
    match l {
        Lazy::Add { w, a, b: y, r } | Lazy::Adc { w, a, b: y, r, .. } => sign_of_and(b, w, r, a, y),
        Lazy::Sub { w, a, b: y, r } | Lazy::Sbb { w, a, b: y, r, .. } => sign_of_and(b, w, a, y, r),
        Lazy::Logic { .. } | Lazy::Float { .. } => b.c(0),
        Lazy::Inc { w, r, .. } => {
            let min = b.c(1 << (w.bits() - 1));
            b.bin(Bin::Eq, w, r, min)
        }
        Lazy::Dec { w, r, .. } => {
            let max = b.c((1 << (w.bits() - 1)) - 1);
            b.bin(Bin::Eq, w, r, max)
        }
        Lazy::Shift { of, .. } => of,
    }
}

fn adjust<B: Backend>(b: &mut B, l: Lazy<B::V>) -> B::V {
    match l {
        Lazy::Add { w, a, b: y, r }
        | Lazy::Adc { w, a, b: y, r, .. }
        | Lazy::Sub { w, a, b: y, r }
        | Lazy::Sbb { w, a, b: y, r, .. } => {
            let x = b.bin(Bin::Xor, w, a, y);
            let x = b.bin(Bin::Xor, w, x, r);
            let x = b.trunc(W::B1, x);
            let four = b.c(4);
            let x = b.bin(Bin::ShrU, W::B4, x, four);
            let one = b.c(1);
            b.bin(Bin::And, W::B4, x, one)
        }
        Lazy::Inc { r, .. } => {
            let mask = b.c(15);
            let low = b.trunc(W::B1, r);
            let low = b.bin(Bin::And, W::B4, low, mask);
            b.un(Un::Eqz, W::B4, low)
        }
        Lazy::Dec { r, .. } => {
            let mask = b.c(15);
            let low = b.trunc(W::B1, r);
            let low = b.bin(Bin::And, W::B4, low, mask);
            b.bin(Bin::Eq, W::B4, low, mask)
        }
        Lazy::Logic { .. } | Lazy::Shift { .. } | Lazy::Float { .. } => b.c(0),
    }
}

/// Writes every flag to its stored place.
pub fn flush_flags<B: Backend>(b: &mut B) {
    if let Some(l) = *b.lazy() {
        for f in [CF, PF, AF, ZF, SF, OF] {
            let v = compute(b, l, f);
            b.store_flag(f, v);
        }
        *b.lazy() = None;
    }
}

/// Sets one flag and keeps the others.
pub fn set_flag<B: Backend>(b: &mut B, f: usize, v: B::V) {
    flush_flags(b);
    b.store_flag(f, v);
}

fn not<B: Backend>(b: &mut B, v: B::V) -> B::V {
    b.un(Un::Eqz, W::B4, v)
}

/// A condition as Jcc, SETcc and CMOVcc test it, 0 or 1; compares fuse with their condition.
pub fn cond<B: Backend>(b: &mut B, cc: ConditionCode) -> B::V {
    use ConditionCode as C;
    let positive = match cc {
        C::no => C::o,
        C::ae => C::b,
        C::ne => C::e,
        C::a => C::be,
        C::ns => C::s,
        C::np => C::p,
        C::ge => C::l,
        C::g => C::le,
        _ => cc,
    };
    if let Some(Lazy::Float { w, a, b: y }) = *b.lazy() {
        let relation = match cc {
            C::a => Some(Rel::Greater),
            C::ae => Some(Rel::GreaterOrEqual),
            C::ne => Some(Rel::LessOrGreater),
            C::p => Some(Rel::Unordered),
            _ => None,
        };
        if let Some(relation) = relation {
            return b.float_is(relation, w, a, y);
        }
        if cc == C::be {
            let v = b.float_is(Rel::Greater, w, a, y);
            return not(b, v);
        }
    }
    if positive != cc {
        if let Some(v) = negated(b, cc) {
            return v;
        }
        let v = cond(b, positive);
        return not(b, v);
    }
    if let Some(Lazy::Sub { w, a, b: y, .. }) = *b.lazy() {
        let op = match cc {
            C::b => Some(Bin::LtU),
            C::be => Some(Bin::LeU),
            C::l => Some(Bin::LtS),
            C::le => Some(Bin::LeS),
            C::e => Some(Bin::Eq),
            _ => None,
        };
        if let Some(op) = op {
            return b.bin(op, w, a, y);
        }
    }
    if let Some(Lazy::Logic { w, r }) = *b.lazy() {
        let zero = b.c(0);
        match cc {
            C::l => return b.bin(Bin::LtS, w, r, zero),
            C::le => return b.bin(Bin::LeS, w, r, zero),
            C::be => return b.un(Un::Eqz, w, r),
            _ => {}
        }
    }
    match cc {
        C::o => get_flag(b, OF),
        C::b => get_flag(b, CF),
        C::e => get_flag(b, ZF),
        C::be => {
            let c = get_flag(b, CF);
            let z = get_flag(b, ZF);
            b.bin(Bin::Or, W::B4, c, z)
        }
        C::s => get_flag(b, SF),
        C::p => get_flag(b, PF),
        C::l | C::le => {
            let s = get_flag(b, SF);
            let o = get_flag(b, OF);
            let less = b.bin(Bin::Ne, W::B4, s, o);
            if cc == C::l {
                return less;
            }
            let z = get_flag(b, ZF);
            b.bin(Bin::Or, W::B4, less, z)
        }
        _ => b.c(1),
    }
}

/// Negated conditions that have a comparison of their own.
fn negated<B: Backend>(b: &mut B, cc: ConditionCode) -> Option<B::V> {
    use ConditionCode as C;
    let Some(Lazy::Sub { w, a, b: y, .. }) = *b.lazy() else {
        return None;
    };
    Some(match cc {
        C::ae => b.bin(Bin::LeU, w, y, a),
        C::a => b.bin(Bin::LtU, w, y, a),
        C::ne => b.bin(Bin::Ne, w, a, y),
        C::ge => b.bin(Bin::LeS, w, y, a),
        C::g => b.bin(Bin::LtS, w, y, a),
        _ => return None,
    })
}
