metadata description = 'Alerts over the telemetry of the runs'

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Name of the installation, for the titles of its alerts.')
param environmentName string

@description('What tells this installation\'s rules from another one\'s in the same resource group.')
param token string

@description('Resource id of Application Insights.')
param applicationInsightsId string

@description('E-mail addresses that are notified.')
param emails string[]

@description('Resource ids of existing action groups that are notified.')
param actionGroupIds string[]

@description('Share of a run\'s nodes, in percent, that may end in error for any control.')
param undeterminedPercent int

@description('Names of the rules that are switched off.')
param off array

// The events as tables, which each query is written over; and what makes of a query's nodes one row a run and cluster.
var events = loadTextContent('../queries/parts/events.kql')
var byCluster = loadTextContent('../queries/parts/by-cluster.kql')

// docs/alerts.md says of each what it means and what to do. Severity: 0 critical, 1 error, 2 warning.
//
// Each query gives one row for each thing to tell, with its run, cluster and node, and what is the matter: "-" where
// there is none. Azure keeps an alert for each different row, tells it once, and ends it when the row has gone for some
// looks. So a row must not change while it lasts: rows with names of nodes come 15 minutes after their run has ended, and
// in a fixed order. A row stays for a day for what happened once (until the next night's run says how it is now), and
// else for as long as the watchdog says that it is so, and an hour. A look gives 300 alerts at most, and an e-mail
// receiver takes 100 an hour: hence one row a run and cluster, and all clusters after the twentieth in one.
//
// A window is two days at most; one of two days holds all nodes of a run that took 23 hours.
var rules = [
  {
    name: 'node-broken'
    title: 'a node may be left broken'
    description: 'A fix may have left a node with a kubelet that is not well. Look at it now.'
    severity: 0
    window: 'P1D'
    query: loadTextContent('../queries/node-broken.kql')
  }
  {
    name: 'fix-failed'
    title: 'a fix failed or was rolled back'
    description: 'Nodes that a fix could not make right; their files are as they were before.'
    severity: 1
    window: 'P2D'
    query: loadTextContent('../queries/fix-failed.kql')
  }
  {
    name: 'run-failed'
    title: 'a run failed'
    description: 'A run ended in failure. Its nodes may not have been looked at.'
    severity: 1
    window: 'P1D'
    query: loadTextContent('../queries/run-failed.kql')
  }
  {
    name: 'run-overdue'
    title: 'the scheduled run is overdue'
    description: 'By the schedule there should have been a run, and there was none, or it found nothing.'
    severity: 1
    window: 'PT1H'
    query: loadTextContent('../queries/run-overdue.kql')
  }
  {
    name: 'refused'
    title: 'the store or Azure refuses'
    description: 'Something that the app cannot do without refuses or is away: its store, Azure, a subscription or cluster.'
    severity: 1
    window: 'P2D'
    query: loadTextContent('../queries/refused.kql')
  }
  {
    name: 'watchdog-silent'
    title: 'the watchdog is silent'
    description: 'The app has not been heard of for an hour: it does not run, or cannot look after its runs. It is also raised before the code is deployed.'
    severity: 1
    window: 'PT1H'
    query: loadTextContent('../queries/watchdog-silent.kql')
  }
  {
    name: 'nodes-failing'
    title: 'nodes fail'
    description: 'Nodes of a run do not comply with a control.'
    severity: 2
    window: 'P2D'
    query: loadTextContent('../queries/nodes-failing.kql')
  }
  {
    name: 'nodes-newly-failing'
    title: 'nodes newly fail'
    description: 'Nodes that complied before, or were fixed, do not comply any more.'
    severity: 2
    window: 'P2D'
    query: loadTextContent('../queries/nodes-newly-failing.kql')
  }
  {
    name: 'undetermined'
    title: 'too many nodes undetermined'
    description: 'More than ${undeterminedPercent} percent of the nodes of a run ended in error for a control: they are neither known to comply nor not to.'
    severity: 2
    window: 'P2D'
    query: replace(loadTextContent('../queries/undetermined.kql'), 'UNDETERMINED_PERCENT', string(undeterminedPercent))
  }
  {
    name: 'approval-waiting'
    title: 'a fix waits for its approval'
    description: 'Nothing goes on until somebody approves or refuses the plan of the fix.'
    severity: 2
    window: 'PT1H'
    query: loadTextContent('../queries/approval-waiting.kql')
  }
  {
    name: 'run-late'
    title: 'a run takes too long'
    description: 'A run goes on for much longer than Azure\'s limits explain.'
    severity: 2
    window: 'PT1H'
    query: loadTextContent('../queries/run-late.kql')
  }
  {
    name: 'fixes-held'
    title: 'fixes are held'
    description: 'A hold is on: no fix starts, and none goes on to its next wave.'
    severity: 2
    window: 'PT1H'
    query: loadTextContent('../queries/fixes-held.kql')
  }
]

resource emailGroup 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
  name: 'ag-kubelet-guard-${token}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    // Twelve characters at most.
    groupShortName: 'guard-${take(token, 6)}'
    emailReceivers: [
      for email in emails: {
        name: email
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: 'kubelet-guard-${rule.name}-${token}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: 'Kubelet guard ${environmentName}: ${rule.title}'
      description: '${rule.description} What to do: docs/alerts.md, ${rule.name}.'
      enabled: !contains(off, rule.name)
      severity: rule.severity
      scopes: [
        applicationInsightsId
      ]
      evaluationFrequency: 'PT15M'
      windowSize: rule.window
      autoMitigate: true
      // A rule is made before its tables are known: validating the query at once can fail a first deployment. The
      // queries are read by Kusto's own parser before (infra/check.sh).
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: '${events}${replace(rule.query, 'BY_CLUSTER', byCluster)}'
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: 0
            dimensions: [
              for name in ['run', 'cluster', 'node', 'what']: {
                name: name
                operator: 'Include'
                values: ['*']
              }
            ]
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: empty(emails) ? actionGroupIds : concat(actionGroupIds, [emailGroup!.id])
      }
    }
  }
]
