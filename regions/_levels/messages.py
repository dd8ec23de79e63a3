"""Compiled loops for the upper bound on the joint choice of levels: messages along edges, and the bound they prove.

A message to a point assigns a number to each of its levels k and radii r. At every level it is linear in r between the
G + 1 equidistant nodes g R_k / G, so its values at the nodes, an array (K, G + 1), describe it. `bound` says what
messages are for; the names are those of docs/levels.md.

Source and cost: those of `bound`.
"""

from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled
from regions._arithmetic.rounding import UNIT
from regions._levels.problem import conflict


@compiled
@no_type_check
def sweep(order, place, start, neighbour, distance, back, R, labels, share, messages):
    """Go through the points in `order`; each sends a message to every neighbour that comes later in the order.

    place : (n,) the position of every point in `order`
    messages : (2 m, K, G + 1); messages[e] goes to the point whose row contains entry e, and comes from neighbour[e]
    back : (2 m,) for every entry, the entry of the same edge in the row of its other end
    share : (n,) the part of a point's belief (see `belief`) that enters the message along each edge
    """
    K, nodes = messages.shape[1:]
    here = np.empty((K, nodes))
    sent = np.empty((K, nodes))
    envelopes = np.empty((K, 4 * nodes))
    highest = np.empty(K)
    reply = np.empty((K, nodes))
    for i in order:
        belief(i, start, R, messages, here)
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if place[j] > place[i]:
                for k in range(K):
                    for g in range(nodes):
                        sent[k, g] = share[i] * here[k, g] - messages[e, k, g]
                most = near_reply(i, j, distance[e], R, labels, sent, envelopes, highest, reply)
                for k in range(K):
                    for g in range(nodes):
                        messages[back[e], k, g] = reply[k, g] - most


@compiled
@no_type_check
def terms(start, neighbour, distance, back, R, labels, later, share, messages, at_point, at_edge):
    """Set `at_point` and `at_edge` to the maxima of the small problems: their sum bounds the optimum (Eq. L2).

    Each term includes a bound on the rounding errors of its own computation.

    later : (n,) how many neighbours of each point have a larger index
    distance : rounded up
    """
    n = R.shape[0]
    K, nodes = messages.shape[1:]
    here = np.empty((K, nodes))
    one = np.empty((K, nodes))
    other = np.empty((K, nodes))
    highest = np.empty((K, nodes))
    reply = np.empty((K, nodes))
    for i in range(n):
        belief(i, start, R, messages, here)
        size = R[i].max()
        for e in range(start[i], start[i + 1]):
            size += np.abs(messages[e]).max()
        degree = start[i + 1] - start[i]
        own = 1.0 - later[i] * share[i]
        at_point[i] = own * here.max() + (degree + 8) * 32 * UNIT * size
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if j > i:
                one[:] = share[i] * here - messages[e]
                other[:] = -messages[back[e]]
                best_reply(i, j, distance[e], R, labels, one, highest, reply)
                best = (reply + other).max()
                best_reply(j, i, distance[e], R, labels, other, highest, reply)
                best = max(best, (reply + one).max())
                at_edge[e] = best + 128 * UNIT * (np.abs(one).max() + np.abs(other).max())


@compiled
@no_type_check
def belief(i, start, R, messages, out):
    """Set `out` to the belief of point i: its radius r plus all messages to it, at the nodes of every level."""
    K, nodes = out.shape
    for k in range(K):
        for g in range(nodes):
            out[k, g] = R[i, k] * (g / (nodes - 1))
    for e in range(start[i], start[i + 1]):
        for k in range(K):
            for g in range(nodes):
                out[k, g] += messages[e, k, g]


@compiled
@no_type_check
def near_reply(i, j, distance, R, labels, f, envelopes, highest, out):
    """Approximate `best_reply` in less time, which is allowed because any messages prove a bound.

    For each level m of point j there is an envelope: at each of a number of equidistant radii, the largest f(k, r) over
    all levels k that conflict with m and all r up to that radius. Levels at which j has the same labels share one
    envelope. That is possible although level m does not conflict with itself: the envelope includes k = m, and adding
    it changes nothing, because the reply takes the largest f(m, r) over all r anyway. So all levels together cost
    O(K nodes).

    envelopes : (K, samples) scratch
    highest : (K,) scratch
    """
    K, nodes = f.shape
    G = nodes - 1
    last = envelopes.shape[1] - 1
    widest = R[i].max()
    for k in range(K):
        highest[k] = f[k].max()
    most = highest.max()
    for m in range(K):
        if R[j, m] <= 0.0:
            out[m] = most
            continue
        free = -np.inf
        for k in range(K):
            if not conflict(R, labels, i, k, j, m):
                free = max(free, highest[k])
        envelope = envelopes[m]
        alike = _alike_before(R, labels, j, m)
        if alike >= 0:
            envelope[:] = envelopes[alike]
        else:
            envelope[:] = -np.inf
            for k in range(K):
                if R[i, k] > 0.0 and (k == m or conflict(R, labels, i, k, j, m)):
                    _raise_to(envelope, f[k], widest / last * (G / R[i, k]))
        for h in range(nodes):
            left = distance - R[j, m] * (h / G)
            out[m, h] = free
            if left >= 0.0 and envelope[0] > -np.inf:
                at = min(left * (last / widest), float(last))
                t = min(int(at), last - 1)
                out[m, h] = max(free, envelope[t] + (envelope[t + 1] - envelope[t]) * (at - t))
    return most


@compiled
@no_type_check
def _alike_before(R, labels, j, m):
    """A level before m at which point j has a positive bound and the same labels as at m; -1 if no level has."""
    for k in range(m):
        alike = R[j, k] > 0.0
        for c in range(labels.shape[2]):
            alike &= labels[j, k, c] == labels[j, m, c]
        if alike:
            return k
    return -1


@compiled
@no_type_check
def _raise_to(envelope, f, step):
    """Raise each sample of the envelope to the largest value that f takes up to the sample's radius, if that is larger.

    Neighbouring samples are `step` nodes of f apart.
    """
    G = f.size - 1
    highest, g = f[0], 0
    for t in range(envelope.size):
        at = t * step
        while g < G and g + 1 <= at:
            g += 1
            highest = max(highest, f[g])
        value = highest
        if g < G:
            value = max(highest, f[g] + (f[g + 1] - f[g]) * (at - g))
        envelope[t] = max(envelope[t], value)


@compiled
@no_type_check
def best_reply(i, j, distance, R, labels, f, highest, out):
    """For each level and radius of point j, find the largest f over the levels and radii of i that this permits.

    out[m, h] : the largest f(k, r) over the levels k and radii r of point i that are feasible if point j has level m
        and the radius of node h. Every r is feasible if k and m do not conflict. Otherwise the sum of the two radii
        must not exceed `distance`.
    highest : scratch; highest[k, g] is the largest f(k, r) over r up to node g

    Returns the largest entry of `out`.
    """
    K, nodes = f.shape
    G = nodes - 1
    for k in range(K):
        highest[k, 0] = f[k, 0]
        for g in range(1, nodes):
            highest[k, g] = max(highest[k, g - 1], f[k, g])
    most = -np.inf
    for m in range(K):
        free = -np.inf
        for k in range(K):
            apart = not conflict(R, labels, i, k, j, m)
            if (apart or R[i, k] + R[j, m] <= distance) and highest[k, G] > free:
                free = highest[k, G]
        for h in range(nodes):
            out[m, h] = free
        for k in range(K):
            if highest[k, G] <= free or R[i, k] + R[j, m] <= distance or not conflict(R, labels, i, k, j, m):
                continue
            for h in range(nodes):
                # the radius left for i, rounded up: a larger one can only raise the reply, so the bound stays valid
                left = (distance - R[j, m] * (h / G)) * (1.0 + 8 * UNIT) + 8 * UNIT * distance
                if left < 0.0:
                    break
                if left >= R[i, k]:
                    value = highest[k, G]
                else:
                    g = min(int(left / R[i, k] * G), G - 1)
                    if g > 0 and R[i, k] * (g / G) > left:
                        g -= 1
                    if g < G - 1 and R[i, k] * ((g + 1) / G) < left:
                        g += 1
                    below = R[i, k] * (g / G)
                    above = R[i, k] * ((g + 1) / G)
                    part = min(1.0, (left - below) / (above - below))
                    value = max(highest[k, g], f[k, g] + (f[k, g + 1] - f[k, g]) * part)
                if value > out[m, h]:
                    out[m, h] = value
        for h in range(nodes):
            most = max(most, out[m, h])
    return most


@compiled
@no_type_check
def nearest_edges(i, j, order, count, keep):
    """Go through the edges in `order`, and mark each in `keep` unless both its ends have `count` marked edges."""
    have = np.zeros(max(i.max(), j.max()) + 1 if i.size else 0, np.int64)
    for e in order:
        if have[i[e]] < count or have[j[e]] < count:
            keep[e] = True
            have[i[e]] += 1
            have[j[e]] += 1
