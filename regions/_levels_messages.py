"""Compiled loops of the joint choice of levels: messages along edges, and the bound that they prove.

A message to a point is a function of its level k and radius r, linear in r between the `G + 1` equidistant nodes
g R_k / G, and stored as its values there, (K, G + 1). The names are those of docs/levels.md.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from regions._levels_kernels import conflict

_compiled = njit(cache=True, nogil=True)


@_compiled
@no_type_check
def sweep(order, place, start, neighbour, distance, back, R, labels, share, messages):
    """Send messages from every point, in `order`, to its neighbours that come later in it.

    messages : (2 m, K, G + 1): messages[e] goes from neighbour[e] to the point in whose row e is
    back : (2 m,) the same edge in the row of its other end
    share : (n,) what part of a point's belief goes along each edge
    """
    K, nodes = messages.shape[1:]
    here = np.empty((K, nodes))
    sent = np.empty((K, nodes))
    least = np.empty((K, nodes))
    reply = np.empty((K, nodes))
    for i in order:
        belief(i, start, R, messages, here)
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if place[j] > place[i]:
                for k in range(K):
                    for g in range(nodes):
                        sent[k, g] = share[i] * here[k, g] - messages[e, k, g]
                most = best_reply(i, j, distance[e], R, labels, sent, least, reply)
                for k in range(K):
                    for g in range(nodes):
                        messages[back[e], k, g] = reply[k, g] - most


@_compiled
@no_type_check
def terms(start, neighbour, distance, back, R, labels, later, share, messages, at_point, at_edge):
    """Terms whose sum bounds the optimum, each with the rounding errors of its computation added.

    Points are in order 0 .. n - 1; later[i] is the number of neighbours after i; `distance` is rounded up.
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
        at_point[i] = own * here.max() + (degree + 8) * 2.0**-48 * size
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if j > i:
                one[:] = share[i] * here - messages[e]
                other[:] = -messages[back[e]]
                best_reply(i, j, distance[e], R, labels, one, highest, reply)
                best = (reply + other).max()
                best_reply(j, i, distance[e], R, labels, other, highest, reply)
                best = max(best, (reply + one).max())
                at_edge[e] = best + 2.0**-46 * (np.abs(one).max() + np.abs(other).max())


@_compiled
@no_type_check
def belief(i, start, R, messages, out):
    """Set out to r plus all messages to i, at the nodes of every level."""
    K, nodes = out.shape
    for k in range(K):
        for g in range(nodes):
            out[k, g] = R[i, k] * (g / (nodes - 1))
    for e in range(start[i], start[i + 1]):
        for k in range(K):
            for g in range(nodes):
                out[k, g] += messages[e, k, g]


@_compiled
@no_type_check
def best_reply(i, j, distance, R, labels, f, highest, out):
    """Set out[m, h] to the largest f(k, r) with which node h of level m of j is compatible; return max(out).

    highest is scratch: highest[k, g] = max f(k, r) over r up to node g.
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
                # rounded up: the reply grows with the radius that is left
                left = (distance - R[j, m] * (h / G)) * (1.0 + 2.0**-50) + 2.0**-50 * distance
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


@_compiled
@no_type_check
def nearest_edges(i, j, order, count, keep):
    """Mark the edges, taken in `order`, of which either end has fewer than `count` marked so far."""
    have = np.zeros(max(i.max(), j.max()) + 1 if i.size else 0, np.int64)
    for e in order:
        if have[i[e]] < count or have[j[e]] < count:
            keep[e] = True
            have[i[e]] += 1
            have[j[e]] += 1
