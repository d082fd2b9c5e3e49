"""The items of two reporting checklists, in our own words, and the facts of a run that answer them.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378, 27 items in 52 parts. CLAIM, 2024 update: Tejani et al. 2024, Radiol
Artif Intell 6:e240300, 44 items. Numbers were compared with the published lists. The wording here is a reminder; the
published texts say what each item asks for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        number: as published.
        asks: for what, in a few words.
        fact: name of the fact of a run that answers it, or None: it is the user's to answer.
    """

    number: str
    asks: str
    fact: str | None = None


TRIPOD_AI: tuple[Item, ...] = (
    Item("1", "title: a prediction model is developed or evaluated, for whom, of what"),
    Item("2", "abstract by TRIPOD+AI for abstracts"),
    Item("3a", "healthcare context and rationale; existing models"),
    Item("3b", "target population, purpose in the pathway, users"),
    Item("3c", "known health inequalities between groups"),
    Item("4", "objectives: development, evaluation, or both"),
    Item("5a", "sources of data and how representative they are", "data"),
    Item("5b", "dates of the data"),
    Item("6a", "setting, number and place of centres", "sites"),
    Item("6b", "who was eligible"),
    Item("6c", "treatments received"),
    Item("7", "preparation and quality checks of the data", "preparation"),
    Item("8a", "the outcome, how and when it was assessed", "outcome"),
    Item("8b", "who assessed it, where judgement is needed"),
    Item("8c", "blinding of its assessment"),
    Item("9a", "why these predictors", "predictors"),
    Item("9b", "definition and measurement of predictors", "predictors"),
    Item("9c", "who assessed predictors, where judgement is needed"),
    Item("10", "how the sample size came about", "size"),
    Item("11", "missing data and their handling", "missing"),
    Item("12a", "how data were used and parted", "partition"),
    Item("12b", "how predictors were transformed", "preparation"),
    Item("12c", "type of model, how it was built, hyper-parameters, internal validation", "model"),
    Item("12d", "differences between clusters such as hospitals", "subgroups"),
    Item("12e", "measures of performance", "measures"),
    Item("12f", "changes made to the model after evaluation, such as recalibration", "updating"),
    Item("12g", "for evaluation: how predictions were calculated", "prediction"),
    Item("13", "class imbalance, what was done about it, and recalibration after it", "imbalance"),
    Item("14", "what was done about fairness", "fairness"),
    Item("15", "the model's output, and how thresholds were chosen", "output"),
    Item("16", "differences between development and evaluation data", "evaluation"),
    Item("17", "ethical approval and consent"),
    Item("18a", "funding"),
    Item("18b", "conflicts of interest"),
    Item("18c", "where the protocol is"),
    Item("18d", "registration"),
    Item("18e", "where the data are"),
    Item("18f", "where the code is", "code"),
    Item("19", "involvement of patients and the public"),
    Item("20a", "flow of participants, with and without the outcome", "sample"),
    Item("20b", "characteristics of participants", "characteristics"),
    Item("20c", "for evaluation: predictors and outcome compared with development", "compared"),
    Item("21", "participants and outcome events in each analysis", "sample"),
    Item("22", "the full model, so that others can use it", "specification"),
    Item("23a", "performance with intervals, also of key subgroups", "performance"),
    Item("23b", "differences in performance between clusters", "subgroups"),
    Item("24", "results of changes to the model after evaluation", "updating"),
    Item("25", "interpretation, also of fairness, beside earlier studies"),
    Item("26", "limitations", "limits"),
    Item("27a", "poor or missing input at use", "quality"),
    Item("27b", "what users must do, and what they must know for it", "use"),
    Item("27c", "next steps for research"),
)

CLAIM: tuple[Item, ...] = (
    Item("1", "title or abstract names the kind of AI"),
    Item("2", "abstract: design, methods, results, conclusions"),
    Item("3", "background, intended use and clinical role"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "goal of the study"),
    Item("7", "sources of data", "data"),
    Item("8", "inclusion and exclusion"),
    Item("9", "preprocessing", "preparation"),
    Item("10", "selection of subsets of the data", "preparation"),
    Item("11", "de-identification"),
    Item("12", "missing data", "missing"),
    Item("13", "how the images were acquired", "acquisition"),
    Item("14", "how the reference standard was obtained", "outcome"),
    Item("15", "why this reference standard"),
    Item("16", "source of its annotations"),
    Item("17", "annotation of the test set"),
    Item("18", "variability between and within annotators"),
    Item("19", "how data were assigned to partitions", "partition"),
    Item("20", "level at which partitions are disjoint", "leakage"),
    Item("21", "intended sample size of the test data", "size"),
    Item("22", "the model in detail", "model"),
    Item("23", "software and its versions", "software"),
    Item("24", "how parameters were initialised", "seed"),
    Item("25", "details of training", "training"),
    Item("26", "how the final model was selected", "selection"),
    Item("27", "ensembling", "prediction"),
    Item("28", "metrics", "measures"),
    Item("29", "measures of significance and uncertainty", "uncertainty"),
    Item("30", "robustness or sensitivity analysis", "subgroups"),
    Item("31", "methods of explanation", "explanation"),
    Item("32", "evaluation on internal data", "internal"),
    Item("33", "testing on external data", "external"),
    Item("34", "registration of a trial"),
    Item("35", "numbers included and excluded", "sample"),
    Item("36", "demographic and clinical characteristics of each partition", "characteristics"),
    Item("37", "performance and its uncertainty", "performance"),
    Item("38", "diagnostic performance and its precision", "performance"),
    Item("39", "analysis of failures", "failures"),
    Item("40", "limitations", "limits"),
    Item("41", "implications for practice"),
    Item("42", "full protocol or further technical details"),
    Item("43", "availability of software, model and data", "code"),
    Item("44", "funding and the funders' role"),
)
